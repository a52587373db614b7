#!/bin/sh
# need.sh PROGRAM=PACKAGE...: sees to it that Debian programs are there; installs the packages of those that are not.
# `venv=PACKAGE` asks for Python's venv module instead of a program, a name that ends in .h for a header of C. Where it
# may not install, it says what is missing.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
missing=""
for pair in "$@"; do
    program=${pair%%=*}
    package=${pair#*=}
    if [ "$program" = venv ]; then
        "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing $package"
    elif [ "${program%.h}" != "$program" ]; then
        [ -e "/usr/include/$program" ] || missing="$missing $package"
    else
        command -v "$program" >/dev/null || missing="$missing $package"
    fi
done
[ -n "$missing" ] || exit 0
echo "installing Debian packages:$missing"
as_root=""
if [ "$(id -u)" != 0 ]; then
    as_root="sudo -n"
    if ! sudo -n true 2>/dev/null; then
        echo "these Debian packages are missing and this user may not install them; run once, as root:" >&2
        echo "    apt-get install$missing" >&2
        exit 2
    fi
fi
export DEBIAN_FRONTEND=noninteractive
# Lists may be absent or old; services that a package would start are not wanted.
$as_root apt-get update -qq
# shellcheck disable=SC2086
$as_root env RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
