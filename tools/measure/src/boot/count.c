// Counts the instructions that a guest executes, all of them and those of this firmware. A plugin of QEMU's translator (QEMU,
// docs/devel/tcg-plugins.rst), without its header, which Debian does not package. VERSION is that of the interface, and the
// firmware is linked at OWN_START up to OWN_END. For one CPU. A block that an exception ends early counts as a whole, and a string
// instruction once for each element.

#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void at_translation(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void at_execution(unsigned int cpu, void *);
typedef void at_end(qemu_plugin_id_t, void *);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
void qemu_plugin_outs(const char *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, at_translation *);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, at_execution *, int no_registers, void *);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, at_end *, void *);

__attribute__((visibility("default"))) int qemu_plugin_version = VERSION;

// The runtime services, a program of their own at the end of RAM, execute fewer instructions than these before a loader starts.
#define SERVICES 4096

static uint64_t all, own;
static bool loaded;

static void print(const char *what) {
    char line[100];
    snprintf(line, sizeof line, "counted at %s: %" PRIu64 " %" PRIu64 "\n", what, all, own);
    qemu_plugin_outs(line);
}

static void executed_own(unsigned int cpu, void *instructions) {
    all += (uintptr_t)instructions;
    own += (uintptr_t)instructions;
}

static void executed_other(unsigned int cpu, void *instructions) {
    all += (uintptr_t)instructions;
    if (!loaded && all - own > SERVICES) {
        loaded = true;
        print("loader");
    }
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    uint64_t address = qemu_plugin_tb_vaddr(block);
    // The image where it is linked, where a CPU starts in it, and its code below 1 MiB.
    bool is_own = (address >= OWN_START && address < OWN_END) || (address >= (uint32_t)OWN_START + 0x40000000ULL && address >> 32 == 0)
        || address < 0x100000;
    uintptr_t instructions = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, is_own ? executed_own : executed_other, 0, (void *)instructions);
}

static void ended(qemu_plugin_id_t id, void *nothing) {
    print("end");
}

__attribute__((visibility("default"))) int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int count, char **words) {
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
