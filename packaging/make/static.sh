#!/bin/sh
# Builds the agent as one static binary, and proves that it is one.
# Two ways lead there: a toolchain that has the musl target (rustup brings it), or Debian's own packages, which have std's
# source but not its musl build.
cd "$(dirname "$0")/../.."
. packaging/make/lib.sh

target=x86_64-unknown-linux-musl
binary=target/$target/release/docker-cache
# A fixed address, so that `file` calls it static and not static-pie on every toolchain.
flags="-C target-feature=+crt-static -C relocation-model=static"

has_target() { ls "$(rustc --print target-libdir --target $target 2>/dev/null)"/libstd-*.rlib >/dev/null 2>&1; }

has_debian_rust() { [ -x /usr/bin/cargo ] && [ -e "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]; }

# LLVM's static unwinder, of the newest release that is installed.
debian_unwinder() {
    find /usr/lib/llvm-*/lib -name libunwind.a 2>/dev/null | sort -V | tail -n 1
}

need_debian_parts() {
    if can_install; then
        if ! has_debian_rust; then apt_install rustc-web cargo-web rust-web-src || true; fi
        if [ -z "$(debian_unwinder)" ]; then
            apt_install "$(apt-cache search --names-only '^libunwind-[0-9]+-dev$' | cut -d ' ' -f 1 | sort -V | tail -n 1)" || true
        fi
    fi
    if ! has_debian_rust || [ -z "$(debian_unwinder)" ]; then
        fail "failed to find a toolchain for $target: \`rustup target add $target\`;" \
            "on Debian \`make static\` as root installs one"
    fi
    need musl-gcc musl-tools
}

# Turns to Debian's rustc, which builds std as well. LLVM's unwinder was built against glibc's fortified headers and wants one
# function that musl does not have; a copy gets it.
use_debian() {
    need_debian_parts
    unwinder=$PWD/target/$target/unwinder
    mkdir -p "$unwinder"
    cp "$(debian_unwinder)" "$unwinder/libunwind.a"
    musl-gcc -O2 -c -o "$unwinder/fortify.o" -x c - <<'C'
#include <stdarg.h>
#include <stdio.h>
int __fprintf_chk(FILE *stream, int flag, const char *format, ...) {
    va_list values;
    va_start(values, format);
    int printed = vfprintf(stream, format, values);
    va_end(values);
    return printed;
}
C
    ar r "$unwinder/libunwind.a" "$unwinder/fortify.o"
    flags="$flags -C linker=musl-gcc -C link-self-contained=no -L $unwinder"
    std=-Zbuild-std=std,panic_unwind
    cargo=/usr/bin/cargo
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
}

need file file
need_cargo
cargo=cargo std=
if ! has_target && has rustup; then rustup target add $target || true; fi
has_target || use_debian

# Its own variable, so that only the target is built with these flags, not what runs while building.
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS="$flags" CARGO_TARGET_DIR="$PWD/target"
"$cargo" build --release --locked --target $target ${std:+"$std"}

file "$binary"
case $(file -b "$binary") in
*"statically linked"*) ;;
*) fail "failed to build \`$binary\`: it is not statically linked" ;;
esac
"$binary" -h >/dev/null || fail "failed to run \`$binary -h\`"

# The agent outlives a panic of one of its threads only if panics unwind, which a wrong unwinder breaks without a word: a small
# program, built in the same way, shows it.
proof=target/$target/unwinds
mkdir -p $proof/src
{
    printf '[package]\nname = "unwinds"\nversion = "0.0.0"\nedition = "2024"\n[workspace]\n'
    sed -n '/^\[profile.release\]/,/^$/p' Cargo.toml
} >$proof/Cargo.toml
echo 'fn main() { assert!(std::thread::spawn(|| panic!("as it should")).join().is_err()) }' >$proof/src/main.rs
(cd $proof && "$cargo" build -q --release --target $target ${std:+"$std"})
target/$target/release/unwinds 2>/dev/null || fail "failed to build \`$binary\`: a panic ends more than its thread"
say "$binary is static, runs, and its threads unwind"
