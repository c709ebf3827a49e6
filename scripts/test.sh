#!/usr/bin/env bash
# Installs what the tests need, then runs format, lints, every test, docs and the house's own
# checks. Stops at the first failure. Works on a clean clone; what it installs goes to
# target/tools (or through apt-get, when root).
#
#   scripts/test.sh                 everything
#   scripts/test.sh --tools         only install the tools and print where they are
#
# Tests that cannot run somewhere append a line `skipped: <what>: <why>` to the file named by
# LEGATION_SKIPS. A full run (CI=true, root) accepts only those of tests/skips-allowed.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

tools="$root/target/tools"
logs="$root/target/test-logs"
postgres="$root/target/test-postgres"
export LEGATION_TEST_TOOLS="$tools"
export LEGATION_SKIPS="$logs/skips"
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"
mkdir -p "$tools" "$logs"
: >"$LEGATION_SKIPS"
: >"$logs/tests"

full=no
if [[ ${CI:-} == true && $(id -u) == 0 ]]; then full=yes; fi

# --- stages -----------------------------------------------------------------

sum() { # sum WORD: adds up the numbers before WORD in the results of the test binaries
    { grep -hoE "[0-9]+ $1" "$logs/tests" || true; } | awk '{ n += $1 } END { print n + 0 }'
}

close() { # close FAILED: the closing line
    local failed skips
    failed=$(sum failed)
    skips=$(grep -c '^skipped:' "$LEGATION_SKIPS" || true)
    if ((failed < $1)); then failed=$1; fi
    echo "$(sum passed) passed, $failed failed, $((skips + $(sum ignored))) skipped"
}

stage() { # stage NAME COMMAND...: runs it, names it, times it; the first failure ends the run
    local name=$1 began=$SECONDS
    shift
    echo "== $name"
    # Not `if "$@"`: that would switch errexit off inside the function.
    set +e
    (
        set -e
        "$@"
    )
    local status=$?
    set -e
    echo "== $name: $((SECONDS - began)) s"
    if ((status != 0)); then
        echo "FAILED: $name (status $status)"
        close 1
        exit 1
    fi
}

# --- tools ------------------------------------------------------------------

debian_packages() {
    local want=()
    command -v cc >/dev/null || want+=(build-essential)
    command -v node >/dev/null || want+=(nodejs)
    command -v npm >/dev/null || want+=(npm)
    command -v git >/dev/null || want+=(git)
    command -v setsid >/dev/null || want+=(util-linux)
    command -v newuidmap >/dev/null || want+=(uidmap)
    scripts/postgres.sh bin >/dev/null || want+=(postgresql)
    command -v qemu-system-x86_64 >/dev/null || want+=(qemu-system-x86)
    command -v busybox >/dev/null || want+=(busybox-static)
    command -v cpio >/dev/null || want+=(cpio)
    command -v openssl >/dev/null || want+=(openssl)
    command -v curl >/dev/null || want+=(curl)
    command -v sqlite3 >/dev/null || want+=(sqlite3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || want+=(python3-venv)
    command -v promtool >/dev/null || want+=(prometheus)
    if ((${#want[@]} == 0)); then return 0; fi
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "missing: ${want[*]}; the tests that need them are skipped"
        return 0
    fi
    export DEBIAN_FRONTEND=noninteractive
    # Its programs are wanted, not a server of the system's.
    if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    apt-get update -qq
    # Only programs are wanted: no package may start a service of its own (prometheus would).
    local policy=/usr/sbin/policy-rc.d ours=no status=0
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        ours=yes
    fi
    apt-get install -y -qq --no-install-recommends "${want[@]}" || status=$?
    if [[ $ours == yes ]]; then rm -f "$policy"; fi
    return "$status"
}

# installed NAME FILES...: whether NAME was installed from exactly these files; else remembers
# that it will be.
installed() {
    local stamp="$tools/$1.stamp" now
    shift
    now=$(cat "$@" | cksum)
    [[ -f $stamp && $(<"$stamp") == "$now" ]] && return 0
    rm -f "$stamp"
    echo "$now" >"$stamp.new"
    return 1
}

npm_locked() { # npm_locked NAME DIR HOME: what DIR locks, installed in HOME
    if installed "$1" "$2/package-lock.json"; then return 0; fi
    mkdir -p "$3"
    cp "$2/package.json" "$2/package-lock.json" "$3/"
    (cd "$3" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    mv "$tools/$1.stamp.new" "$tools/$1.stamp"
}

python_locked() { # python_locked NAME FILE HOME: an environment in HOME of what FILE says
    if installed "$1" "$2"; then return 0; fi
    rm -rf "$3"
    python3 -m venv "$3"
    "$3/bin/pip" -q install --disable-pip-version-check --no-input --requirement "$2"
    mv "$tools/$1.stamp.new" "$tools/$1.stamp"
}

npm_servers() {
    if ! command -v npm >/dev/null; then return 0; fi
    npm_locked npm tests/servers/npm "$tools/npm"
    ls "$tools/npm/node_modules/.bin" | grep '^mcp-server-'
}

python_servers() {
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then return 0; fi
    python_locked venv tests/servers/requirements.txt "$tools/venv"
    # What the tests' own index serves.
    if ! installed wheels tests/servers/requirements.txt; then
        rm -rf "$tools/wheels"
        "$tools/venv/bin/pip" -q download --disable-pip-version-check --no-input \
            --only-binary :all: --constraint tests/servers/requirements.txt \
            --dest "$tools/wheels" mcp-server-time
        mv "$tools/wheels.stamp.new" "$tools/wheels.stamp"
    fi
    ls "$tools/venv/bin/mcp-server-time" | xargs -n1 basename
}

# The conformance suite and what real clients are made of; a Node for those that Debian's is too old for.
clients() {
    if command -v npm >/dev/null; then
        npm_locked clients-npm tests/clients/npm "$tools/clients/npm"
    fi
    if python3 -c 'import ensurepip, venv' 2>/dev/null; then
        python_locked clients-venv tests/clients/requirements.txt "$tools/clients/venv"
    fi
}

# A server for the storage suite, of this run's own and gone with it.
postgresql() {
    if ! scripts/postgres.sh bin >/dev/null; then
        echo "PostgreSQL is not installed; its tests are skipped"
        return 0
    fi
    scripts/postgres.sh start "$postgres" >"$logs/postgres-url"
    "$(scripts/postgres.sh bin)/postgres" --version
}

# --- checks of our own ------------------------------------------------------

# Lines of each source file before its tests.
file_sizes() {
    local over=0 file lines
    while IFS= read -r file; do
        lines=$(awk '/^#\[cfg\(test\)\]/ { exit } { n++ } END { print n + 0 }' "$file")
        if ((lines > 500)); then
            echo "$file: $lines lines without its tests; 500 is the most, split it by idea"
            over=1
        fi
    done < <(git ls-files 'src/*.rs' 'sandbox/*.rs' 'benches/*.rs')
    return "$over"
}

# The character classes keep the patterns from finding themselves.
foreign_names() {
    local found=0
    if git grep -nE '(registry[.]npmjs|crates[.]io/|pypi[.]org|pythonhosted[.]org|deb[.]debian)' \
        -- . ':!Cargo.lock'; then
        echo "a package registry is named by its host: use the client's own configuration"
        found=1
    fi
    if git grep -nE '([/]work/(shared|main|[.])|[/]tmp/wt|[/]root/[.a-z]|[/]farm/)' -- .; then
        echo "a path of one machine is in a tracked file"
        found=1
    fi
    return "$found"
}

every_test() {
    cargo test --workspace --no-fail-fast 2>&1 | tee -a "$logs/tests"
}

# The models of the concurrent core: a package of its own, with a target directory of its own
# because the flag would rebuild everything.
loom_models() {
    if [[ ! -f tests/loom/Cargo.toml ]]; then
        echo "no loom models yet"
        return 0
    fi
    RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$root/target/loom" \
        cargo test --release --package loom-models 2>&1 | tee -a "$logs/tests"
}

# The suites of the sandbox and the jail once more, on a kernel with cgroup v2 alone.
cgroup_v2() {
    scripts/v2.sh 2>&1 | tee -a "$logs/tests"
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --quiet
}

dependencies() {
    if [[ ! -f deny.toml ]] || ! cargo deny --version >/dev/null 2>&1; then
        echo "cargo-deny is not installed"
        return 0
    fi
    cargo deny --offline check bans licenses sources
}

enough_tests() {
    local least passed
    least=$(<tests/executed-min)
    passed=$(sum passed)
    if ((passed < least)); then
        echo "$passed tests passed; tests/executed-min wants at least $least"
        return 1
    fi
    echo "$passed tests passed (at least $least)"
}

skips() {
    sort "$LEGATION_SKIPS" | uniq -c
    if [[ $full == no ]]; then return 0; fi
    local line allowed bad=0
    while IFS= read -r line; do
        [[ $line == skipped:* ]] || continue
        allowed=no
        while IFS= read -r prefix; do
            if [[ $prefix == skipped:* && $line == "$prefix"* ]]; then allowed=yes; fi
        done <tests/skips-allowed
        if [[ $allowed == no ]]; then
            echo "not allowed in a full run: $line"
            bad=1
        fi
    done <"$LEGATION_SKIPS"
    return "$bad"
}

# --- the run ----------------------------------------------------------------

stage "Debian packages" debian_packages
stage "MCP servers of npm" npm_servers
stage "MCP servers of PyPI" python_servers
stage "MCP clients" clients
if [[ ${1:-} == --tools ]]; then
    echo "LEGATION_TEST_TOOLS=$tools"
    exit 0
fi
trap 'scripts/postgres.sh stop "$postgres"' EXIT
scripts/postgres.sh stop "$postgres"
rm -f "$logs/postgres-url"
stage "PostgreSQL" postgresql
if [[ -f $logs/postgres-url ]]; then
    LEGATION_TEST_POSTGRES=$(<"$logs/postgres-url")
    export LEGATION_TEST_POSTGRES
fi
stage "file sizes" file_sizes
stage "names of hosts and machines" foreign_names
stage "format" cargo fmt --all --check
stage "lints" cargo clippy --workspace --all-targets --quiet -- -D warnings
stage "tests" every_test
stage "cgroup v2" cgroup_v2
stage "loom models" loom_models
stage "docs" docs
stage "dependencies" dependencies
stage "number of tests" enough_tests
stage "skips" skips
close 0
