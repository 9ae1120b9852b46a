# Sourced by the three scripts of the competition. Sets ROOT, the repository, and PYTHON: that of the project's .venv, or
# else the active one. The package is found without having been installed.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=$ROOT/.venv/bin/python
[ -x "$PYTHON" ] || PYTHON=$(command -v python3 || command -v python) || { echo "$0: there is no python" >&2; exit 2; }
export PYTHONPATH=$ROOT${PYTHONPATH:+:$PYTHONPATH}

# usage: expect_version COUNT-WANTED USAGE "$@"
expect_version() {
    local wanted=$1 usage=$2
    shift 2
    if [ $# -ne "$wanted" ] || [ "$1" != v1 ]; then
        echo "usage: $(basename "$0") $usage" >&2
        exit 2
    fi
}
