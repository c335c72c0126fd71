# What the image of the runtime services begins with, for whoever loads it (src/efi/runtime/image.rs). All numbers are 32 bits
# wide and count bytes from the start of the image.

        .section .header, "a"
        .globl runtime_image
runtime_image:
        .ascii  "FLRT"
        .long   shared - runtime_image          # where the firmware's tables go
        .long   data - runtime_image            # where the code ends: what follows is written
        .long   end - runtime_image             # how much memory all of it takes
        .long   get_time - runtime_image        # the services, in the order of EFI_RUNTIME_SERVICES
        .long   set_time - runtime_image
        .long   unsupported - runtime_image     # GetWakeupTime
        .long   unsupported - runtime_image     # SetWakeupTime
        .long   set_virtual_address_map - runtime_image
        .long   convert_pointer - runtime_image
        .long   get_variable - runtime_image
        .long   get_next_variable_name - runtime_image
        .long   set_variable - runtime_image
        .long   get_next_high_monotonic_count - runtime_image
        .long   reset_system - runtime_image
        .long   unsupported - runtime_image     # UpdateCapsule
        .long   unsupported - runtime_image     # QueryCapsuleCapabilities
        .long   query_variable_info - runtime_image
