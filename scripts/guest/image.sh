#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make a guest of a stock Debian kernel and tools: DIR/vmlinuz and DIR/initrd, cached there.
#   scripts/guest/image.sh DIR
# Its packages come from where this machine's come from, of another suite.  Nothing is installed here: packages
# are unpacked, and what the tests use (programs, their libraries, modules) is packed into one initramfs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
suite=trixie # kernel 6.12, whose nvme-tcp is what the tests were written against

packages=(linux-image-amd64 nvme-cli fio e2fsprogs xfsprogs kmod busybox-static)
programs=(nvme fio mke2fs e2fsck mkfs.xfs xfs_repair kmod)
modules=(nvme-tcp nvmet-tcp virtio_pci virtio_net ext4 xfs crc32c_generic crc32c_intel)

mkdir -p "$dir"
stamp="$suite ${packages[*]} ${programs[*]} ${modules[*]}"
if [ "$(cat "$dir/made-of" 2>/dev/null)" = "$stamp" ]; then
	exec "$here/pack.py" "$dir/root" "$dir/initrd" "$here/init" "${programs[*]}" "${modules[*]}"
fi

here_suite=$(. /etc/os-release && echo "${VERSION_CODENAME:?}")
for sources in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list ''; do
	[ -z "$sources" ] || [ ! -s "$sources" ] || break
done
[ -n "$sources" ] || {
	echo "guest: this machine has no Debian package source to take a guest's packages from" >&2
	exit 2
}
rm -rf "$dir/root"
include=$(IFS=, && echo "${packages[*]}")
sed "s/\\b$here_suite\\b/$suite/g" "$sources" | mmdebstrap --quiet --variant=extract --include="$include" \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "$dir/root" -
version=$(ls "$dir/root/usr/lib/modules")
cp "$dir/root/boot/vmlinuz-$version" "$dir/vmlinuz"
"$here/pack.py" "$dir/root" "$dir/initrd" "$here/init" "${programs[*]}" "${modules[*]}"
echo "$stamp" >"$dir/made-of"
