#!/usr/bin/env bash
# Sets up one part of what `make run` and `make test` need; each part says what it does and does it once.
#   setup.sh python | python-test | node FOLDER | system-run | system-test
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }

# have_apt: whether this user may install Debian packages here
have_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() { # apt_install PACKAGE…
  say "Installing with apt: $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 && return
  apt-get update -qq >/dev/null && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need WHAT HOW PACKAGE… : install the packages, or say how to get them
need() {
  local what=$1 why=$2; shift 2
  if have_apt && apt_install "$@"; then return; fi
  say "Missing: $what. $why"
  say "  Get it with: sudo apt-get install $*"
  [ "${CI:-}" != true ] || exit 1
}

case "$1" in
  python)
    if [ ! -x .venv/bin/python ]; then
      python=$(command -v python3.11 || command -v python3) || { say "Python 3.11 or newer is needed."; exit 1; }
      "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { say "Python 3.11 or newer is needed, this is $("$python" --version)."; exit 1; }
      "$python" -c 'import ensurepip' 2>/dev/null || need "Python's venv module" "The environment needs it." python3-venv
      say "Making .venv"; "$python" -m venv .venv
    fi
    say "Installing Python packages"
    .venv/bin/pip install -q --disable-pip-version-check -c constraints.txt -e server -e runners ;;
  python-test)
    say "Installing Python packages of the tests"
    .venv/bin/pip install -q --disable-pip-version-check -c constraints.txt -e 'server[test]' -e 'runners[docker,kubernetes]' ;;
  node)
    say "Installing Node packages of $2"
    cd "$2" && PATH="$OLDPWD/.venv/bin:$PATH" npm ci --silent --no-audit --no-fund ;;
  system-run)
    command -v bwrap >/dev/null || need "bubblewrap" "Until it is there, everything works but Run." bubblewrap ;;
  system-test)
    command -v bwrap >/dev/null || need "bubblewrap" "The sandbox tests need it." bubblewrap
    command -v chromium >/dev/null || need "Chromium" "The browser tests need it." chromium fonts-dejavu-core
    ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || need "PostgreSQL" "The database tests need it." postgresql
    command -v redis-server >/dev/null || need "Redis" "The tests of several processes need it." redis-server
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || need "libfaketime" "The tests in which clocks jump need it." libfaketime
    for tool in gcc g++ lua5.4 php ruby sqlite3; do
      command -v "$tool" >/dev/null && continue
      need "Compilers and interpreters" "The tests of languages need them." gcc libc6-dev g++ lua5.4 php-cli ruby sqlite3
      break
    done
    /usr/bin/python3 -c 'import matplotlib, pandas, plotly' 2>/dev/null || need "matplotlib, pandas and plotly" "The tests of figures and of what is imported beforehand need them." python3-matplotlib python3-pandas python3-plotly
    PATH=$PATH:/usr/sbin command -v nginx >/dev/null || need "nginx" "The test of several processes behind a proxy needs it." nginx-light
    if [ "$(id -u)" = 0 ]; then # an engine of the tests' own needs root
      for tool in dockerd docker debootstrap; do
        PATH=$PATH:/usr/sbin command -v $tool >/dev/null && continue
        need "A Docker engine" "The tests of the Docker carrier need it." docker.io debootstrap
        break
      done
      .venv/bin/python -m deploy.engine prepare || [ "${CI:-}" != true ] || exit 1
    fi ;;
  *) say "setup.sh: unknown part $1"; exit 2 ;;
esac
