#!/bin/sh
# Runs a playbook of ansible/ with the settings of this clone. Needs .venv-ops (scripts/make_venv.sh ops).
#
#   INVENTORY=file scripts/fleet.sh provision|report|rollback|plan
#   LIMIT=hosts    only these;  CHECK=1  only say what would be done;  ARGS=...  more for ansible-playbook
#   SERIAL=1       how many hosts are renewed at once; one at a time keeps the others serving
set -eu
called_from=$PWD
cd "$(dirname "$0")/.."

stop() {
    printf '%s\n' "$@" >&2
    exit 1
}

verb=${1:-}
case "$verb" in
    provision) playbook=site.yml ;;
    report | rollback | plan) playbook=$verb.yml ;;
    *) stop "usage: INVENTORY=file $0 provision|report|rollback|plan" ;;
esac

[ -n "${INVENTORY:-}" ] || stop "No inventory was named." \
    "Copy ansible/inventory.example.yml, put your hosts in, then: make $verb INVENTORY=your-inventory.yml"
case "$INVENTORY" in
    /*) inventory=$INVENTORY ;;
    *) inventory=$called_from/$INVENTORY ;;
esac
[ -e "$inventory" ] || stop "There is no inventory $INVENTORY." "Correct the name; it counts from where make was called."

PATH=$PWD/.venv-ops/bin:$PATH
# A file that is no inventory must not be taken for a fleet without hosts.
export PATH ANSIBLE_CONFIG="$PWD/ansible/ansible.cfg" ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=true
set -- --inventory ansible/fleet.yml --inventory "$inventory" "ansible/$playbook"
[ -z "${LIMIT:-}" ] || set -- "$@" --limit "$LIMIT"
[ -z "${SERIAL:-}" ] || set -- "$@" --extra-vars "fleet_serial=$SERIAL"
[ -z "${CHECK:-}" ] || set -- "$@" --check --diff
table=build/fleet/$verb.txt
rm -f "$table"
status=0
# shellcheck disable=SC2086  # ARGS is several words on purpose
ansible-playbook "$@" ${ARGS:-} || status=$?
[ ! -e "$table" ] || cat "$table"
exit $status
