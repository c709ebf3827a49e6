#!/usr/bin/env bash
# Installs the gateways that benches/hop.rs compares with into target/peers, pinned. Not part of
# the tests: the Rust ones take minutes to build.
#
#   scripts/peers.sh [npm] [pypi] [cargo]     all three when none is named
set -euo pipefail
cd "$(dirname "$0")/.."
peers="$PWD/target/peers"
mkdir -p "$peers"
kinds=("$@")
if ((${#kinds[@]} == 0)); then kinds=(npm pypi cargo); fi

for kind in "${kinds[@]}"; do
    case $kind in
    npm)
        mkdir -p "$peers/npm"
        npm install --prefix "$peers/npm" --ignore-scripts --no-audit --no-fund --loglevel=error \
            supergateway@4.0.0
        ;;
    pypi)
        [[ -d $peers/venv ]] || python3 -m venv "$peers/venv"
        "$peers/venv/bin/pip" -q install --disable-pip-version-check --no-input mcp-proxy==0.13.0
        ;;
    cargo)
        # One target directory: the three share most of what they build.
        for crate in mcp-aggregator@0.1.0 mcpway@0.2.1 mcp-proxy@0.6.0; do
            CARGO_TARGET_DIR="$peers/build" nice -n 19 cargo install --locked --quiet \
                --root "$peers/cargo" "$crate"
        done
        ;;
    *)
        echo "no kind $kind; there are npm, pypi and cargo" >&2
        exit 2
        ;;
    esac
done
ls "$peers"/npm/node_modules/.bin/supergateway "$peers"/venv/bin/mcp-proxy "$peers"/cargo/bin/* \
    2>/dev/null || true
