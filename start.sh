#!/bin/sh
# Start LoRA Garage on a PC that may have no Python: uv brings one, and launch.py does the rest. Arguments go to launch.py.
#
# uv is taken from PATH or from .uv here; else it is fetched into .uv, in the version and by the SHA-256 of packaging/uv.txt, and
# keeps its Python there too, so that all goes with this folder. Its sentences are in core/locales/*/start.yaml,
# those of a further language in the section start of core/locales/<code>.yaml.
# LORA_GARAGE_UV_FROM: another place that has uv's releases (a mirror). UV_PYTHON, UV_PYTHON_PREFERENCE: as uv knows them.
set -u
cd -- "$(dirname -- "$0")" || exit 1

say() { # KEY [NAME VALUE]...: a sentence, with its values put in
    language=$(printf '%.2s' "${LORA_GARAGE_LANG:-${LC_ALL:-${LC_MESSAGES:-${LANG:-}}}}" | sed y/ABCDEFGHIJKLMNOPQRSTUVWXYZ/abcdefghijklmnopqrstuvwxyz/)
    for file in "core/locales/$language/start.yaml" "core/locales/$language.yaml" core/locales/en/start.yaml; do [ ! -f "$file" ] || break; done
    sentence=$(sed -n -e "s/^$1: \"\(.*\)\"\$/\1/p" -e "/^start:\$/,/^[a-z_]*:\$/s/^  $1: \"\(.*\)\"\$/\1/p" "$file")
    shift
    while [ $# -ge 2 ]; do
        sentence=$(printf '%s' "$sentence" | sed "s|{$1}|$(printf '%s' "$2" | sed 's/[&|\\]/\\&/g')|g")
        shift 2
    done
    printf '%s\n' "$sentence"
}

fail() {
    rm -rf .uv.part
    say "$@" >&2
    exit 1
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$1"; else shasum -a 256 "$1"; fi | cut -d' ' -f1; }

fetch() { # URL FILE
    if command -v curl >/dev/null; then
        curl -fL --progress-bar --connect-timeout 20 -o "$2" "$1"
    elif command -v wget >/dev/null; then
        wget -q --tries=2 --timeout=20 -O "$2" "$1"
    else
        fail no_curl
    fi
}

fetch_uv() {
    platform=$(uname -m | sed 's/^amd64$/x86_64/; s/^arm64$/aarch64/')
    case $(uname -s) in Linux) platform=$platform-unknown-linux-gnu ;; Darwin) platform=$platform-apple-darwin ;; esac
    version=$(sed -n 's/^version //p' packaging/uv.txt)
    line=$(grep "^$platform " packaging/uv.txt) || fail no_uv platform "$platform"
    megabytes=$(echo "$line" | cut -d' ' -f2)
    expected=$(echo "$line" | cut -d' ' -f3)
    url=${LORA_GARAGE_UV_FROM:-https://github.com/astral-sh/uv/releases/download}/$version/uv-$platform.tar.gz

    say fetch version "$version" megabytes "$megabytes" url "$url"
    rm -rf .uv.part
    mkdir .uv.part || fail cannot_write folder "$PWD"
    fetch "$url" .uv.part/uv.tar.gz
    status=$?
    if [ $status -ne 0 ]; then
        [ -s .uv.part/uv.tar.gz ] && fail cut url "$url"
        fail unreachable url "$url" status $status
    fi
    found=$(sha256 .uv.part/uv.tar.gz)
    [ "$found" = "$expected" ] || fail wrong_hash url "$url" found "$found" expected "$expected"
    tar -xzf .uv.part/uv.tar.gz -C .uv.part --strip-components=1 || fail cut url "$url"
    rm .uv.part/uv.tar.gz
    mkdir -p .uv && mv .uv.part/uv .uv/uv && rm -rf .uv.part
}

if uv=$(command -v uv); then :; else
    uv=$PWD/.uv/uv
    [ -x "$uv" ] || fetch_uv
    export UV_PYTHON_INSTALL_DIR="$PWD/.uv/python" UV_CACHE_DIR="$PWD/.uv/cache"
fi
# A Python of uv's own: Debian's cannot make environments. Isolated: never that of .venv, which launch.py may have to make again.
export UV_PYTHON="${UV_PYTHON:-3.12}" UV_PYTHON_PREFERENCE="${UV_PYTHON_PREFERENCE:-only-managed}"
export UV_PYTHON_INSTALL_BIN=0 UV_PYTHON_INSTALL_REGISTRY=0
if ! "$uv" python find --system --no-project "$UV_PYTHON" >/dev/null 2>&1; then
    say python python "$UV_PYTHON"
    "$uv" python install "$UV_PYTHON" || fail no_python python "$UV_PYTHON"
fi
exec "$uv" run --no-project --isolated launch.py "$@"
