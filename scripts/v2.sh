#!/usr/bin/env bash
# Runs the suites that talk to the kernel on real cgroup v2: boots Debian's kernel in an emulator
# (no KVM needed) with an initramfs of the test binaries, and reads the results off its console.
#
#   scripts/v2.sh                   the suites, on 6.1 and on 6.12
#   scripts/v2.sh bench             the spawn bench instead (release build; only its ratios mean anything)
#   V2_KERNEL=PACKAGE scripts/v2.sh another kernel, by the name of its Debian package
#
# Needs qemu-system-x86, busybox-static, cpio and apt-get. What is missing is told as
# `skipped: cgroup v2: …`; nothing is installed and no kernel but the guest's is touched.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
what=${1:-tests}
work="$root/target/v2"
# The guest is emulated: a suite of 5 s takes 30, or 90 where the machine is slow. Past this it hangs, and is ended.
seconds=${V2_SECONDS:-900}

skip() {
    echo "skipped: cgroup v2: $1" | tee -a "${LEGATION_SKIPS:-/dev/null}"
    exit 0
}

needs() {
    local tool
    for tool in qemu-system-x86_64 busybox cpio apt-get dpkg-deb; do
        command -v "$tool" >/dev/null || skip "$tool is not installed"
    done
    [[ $(uname -m) == x86_64 ]] || skip "the guest is built from this machine's binaries, for x86-64"
}

# fetch PACKAGE: into target/v2/deb; an index that is out of date is renewed once.
fetch() {
    rm -rf "$work/deb"
    mkdir -p "$work/deb"
    (cd "$work/deb" && apt-get download -qq "$1") && return 0
    [[ $(id -u) == 0 ]] && apt-get update -qq && (cd "$work/deb" && apt-get download -qq "$1")
}

# kernel PACKAGE: downloads it once and takes the image out of it. A meta package names the real one.
kernel() {
    local package=$1 real
    real=$(apt-cache depends "$package" 2>/dev/null | awk '/^ *Depends: linux-image-[0-9]/ { print $2; exit }')
    real=${real:-$package}
    image="$work/$real"
    [[ -s $image ]] && return 0
    if ! fetch "$real"; then
        echo "skipped: cgroup v2: the package $real cannot be had" | tee -a "${LEGATION_SKIPS:-/dev/null}"
        return 1
    fi
    dpkg-deb --fsys-tarfile "$work/deb/$real"_*.deb | tar -xO --wildcards './boot/vmlinuz-*' >"$image.new"
    rm -r "$work/deb"
    mv "$image.new" "$image"
}

# executable KIND ARGUMENTS...: the path of the one binary of that kind that cargo builds for them.
executable() {
    local kind=$1
    shift
    cargo "$@" --message-format=json 2>"$work/cargo.log" | grep -F "\"kind\":[\"$kind\"]" |
        grep -o '"executable":"[^"]*"' | cut -d'"' -f4 | tail -1 || true
}

# place NAME BINARY: into the guest's root, without symbols, with its libraries.
place() {
    [[ -x $2 ]] || {
        echo "no binary for $1:"
        tail -20 "$work/cargo.log"
        exit 1
    }
    strip -o "$guest/v2/$1" "$2"
    libraries "$2"
}

# libraries BINARY: into the guest, where they are here.
libraries() {
    local library
    ldd "$1" | grep -o '/[^ ]*' | while read -r library; do
        mkdir -p "$guest$(dirname "$library")"
        cp -Lu "$library" "$guest$library"
    done
}

initramfs() {
    guest="$work/root"
    rm -rf "$guest"
    mkdir -p "$guest"/{bin,usr/bin,proc,sys,dev,tmp,etc,v2}
    cp "$(command -v busybox)" "$guest/bin/busybox"
    local applet
    for applet in $(busybox --list | grep -vx busybox); do
        ln -sf /bin/busybox "$guest/bin/$applet"
        ln -sf /bin/busybox "$guest/usr/bin/$applet"
    done
    printf '%s\n' 'root:x:0:0:root:/:/bin/sh' 'user:x:1000:1000:user:/:/bin/sh' >"$guest/etc/passwd"
    printf '%s\n' 'root:x:0:' 'user:x:1000:' >"$guest/etc/group"
    cp scripts/v2/init "$guest/init"
    # What gives an ordinary user's gateway ids of its own: set-uid, as the host has it.
    echo 'user:100000:65536' | tee "$guest/etc/subuid" >"$guest/etc/subgid"
    local program
    for program in newuidmap newgidmap; do
        if command -v "$program" >/dev/null; then
            libraries "$(command -v "$program")"
            install -m 4755 "$(command -v "$program")" "$guest/usr/bin/$program"
        fi
    done
    if [[ $what == bench ]]; then
        place spawn "$(executable bench bench --bench spawn --no-run)"
        place legation "$(executable bin build --release --bin legation)"
    else
        place sandbox "$(executable test test --package sandbox --test main --no-run)"
        place jail "$(executable test test --test jail --no-run)"
    fi
    (cd "$guest" && find . | cpio --quiet --create --format=newc --owner=0:0) | gzip -1 >"$work/initramfs"
}

boot() {
    # Of the kernel before.
    : >"$work/console"
    timeout --kill-after=5 "$seconds" qemu-system-x86_64 \
        -accel tcg -cpu max -smp 1 -m 1024 -nographic -no-reboot -nodefaults -serial stdio -monitor none \
        -kernel "$image" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet panic=-1 cgroup_no_v1=all psi=1 v2.run=$what" \
        </dev/null | tr -d '\r' | tee "$work/console" || true
}

# Every suite that began must have ended well, and the guest must have come to its end.
judge() {
    local bad=0 name
    grep -q '^v2: done' "$work/console" || {
        echo "the guest did not come to its end within $seconds s; see $work/console"
        bad=1
    }
    while read -r name; do
        grep -q "^v2: end $name status 0" "$work/console" || {
            echo "$name failed on cgroup v2"
            bad=1
        }
    done < <(awk '/^v2: begin/ { print $3 }' "$work/console")
    grep -q '^v2: begin' "$work/console" || bad=1
    # What cannot run there is told where all skips are told; a full run accepts none of them.
    sed -n 's/^test \(.*\) \.\.\. skipped: /skipped: cgroup v2: \1: /p' "$work/console" |
        tee -a "${LEGATION_SKIPS:-/dev/null}"
    return "$bad"
}

mkdir -p "$work"
needs
initramfs
kernels=${V2_KERNEL:-linux-image-cloud-amd64 linux-image-6.12-cloud-amd64}
[[ $what == bench ]] && kernels=${V2_KERNEL:-linux-image-cloud-amd64}
failed=0
for package in $kernels; do
    kernel "$package" || continue
    boot
    judge || failed=1
done
exit "$failed"
