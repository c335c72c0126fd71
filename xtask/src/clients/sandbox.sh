# Runs a recipe of docs/clients.md as on a machine where the firmware and kernels are installed, in its own namespaces of mounts and
# processes. Nothing of it stays: the processes end with this one, and the mounts with them.
#
# The current folder has `usr` and `boot`, which are laid over those of the machine, `work` (overlayfs wants it), `tmp` for what the
# recipe writes, and the recipe, `recipe.sh`. The argument is the user: libvirt keeps apart from the machine's own only for users
# that are not root, and libguestfs only works for the user that owns the machine's files.
#
# The current folder may be below one that is hidden here. So all names of it are relative, which `mount` must leave as they are.
set -e
user=$1
mount -t overlay overlay -o userxattr,lowerdir=/usr,upperdir=usr,workdir=work /usr
mount -t tmpfs tmpfs /run
mount --no-canonicalize --bind boot /boot
for kernel in boot/modules-*; do
    [ -e "$kernel" ] || continue
    mount --no-canonicalize --bind "$kernel" "/usr/lib/modules/${kernel#boot/modules-}"
done
mkdir /run/lock
mkdir -m 700 /run/user-folder /run/home
mount --no-canonicalize --bind tmp /var/tmp
unset XDG_CONFIG_HOME XDG_CACHE_HOME
export HOME=/run/home XDG_RUNTIME_DIR=/run/user-folder LC_ALL=C
case $user in
    root) set -- ;;
    *) set -- unshare --user --map-user=1000 --map-group=1000 ;;
esac
# A recipe's programs want a terminal, and input that does not end. This shell is the first process of its namespace: when it ends,
# the others are killed.
mkfifo /run/input
exec 3<>/run/input
"$@" script --quiet --return --flush --command 'sh -e recipe.sh' /dev/null <&3
