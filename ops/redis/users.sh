#!/bin/sh
# Prints the server's ACL file: a user for each role, a producer for each lane, and two for servers among themselves.
#
#   usage: ops/redis/users.sh PASSWORDS_DIR LANE... > users.acl       (LANE like bitget:main)
#
# The password of a user stands in PASSWORDS_DIR, in a file of its name: worker, operator, auditor, jobs, metrics,
# rq-desk, admin, replica, sentinel, producer-bitget-main and so on. Only its SHA-256 is printed, and it never stands on
# a command line. A file of two lines gives two passwords that both work, for the time of a change. A user without a
# file is printed, and is off.
#
#   mkdir -m 700 passwords && for user in worker operator; do openssl rand -hex 24 > passwords/$user; done
#
# Redis 7.0 and newer, Valkey 7.2 and newer: `aclfile /etc/redis/users.acl` in the server's configuration. How a running
# server takes a changed file: docs/SECURITY.md. What each role may do, and why, stands in roles/.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
passwords=${1-}

fail() {
  printf '%s: %s\n' "$(basename -- "$0")" "$1" >&2
  exit 64
}

[ $# -ge 2 ] || fail "usage: $0 PASSWORDS_DIR LANE... > users.acl"
[ -d "$passwords" ] || fail "$passwords is no folder; make it: mkdir -m 700 $passwords"
shift

# What a role may do, on one line: without comments, with the lane's name.
rules() {
  case $1 in
    replica | sentinel) cat "$here/servers/$1.acl" ;;
    *) cat "$here/roles/common.acl" "$here/roles/$1.acl" ;;
  esac | sed -e 's/^[[:space:]]*#.*//' -e "s/LANE/${2-}/g" |
    tr -s ' \t\n' '   ' | tr -s ' ' | sed -e 's/( /(/g' -e 's/ )/)/g' -e 's/^ //' -e 's/ $//'
}

sha256() {
  if command -v sha256sum > /dev/null; then sha256sum; else shasum -a 256; fi | cut -d ' ' -f 1
}

# `on` and the hashes of the user's passwords, or `off`.
access() {
  found=off
  if [ -e "$passwords/$1" ]; then
    [ -r "$passwords/$1" ] || fail "$passwords/$1 cannot be read"
    while IFS= read -r password || [ -n "$password" ]; do
      [ -n "$password" ] || continue
      [ "${#password}" -ge 16 ] || fail "a password in $passwords/$1 is shorter than 16 characters"
      found="${found#off} #$(printf %s "$password" | sha256)"
    done < "$passwords/$1"
    [ "$found" != off ] || fail "$passwords/$1 is empty"
    found="on$found"
  else
    printf '%s: no file %s, so the user %s is off\n' "$(basename -- "$0")" "$passwords/$1" "$1" >&2
  fi
  printf %s "$found"
}

user() {
  # In a variable, so that what fails in there ends the script.
  may=$(access "$1")
  printf 'user %s reset %s %s\n' "$1" "$may" "$(rules "$2" "${3-}")"
}

for lane in "$@"; do
  case $lane in *[!a-z0-9_:]*) fail "$lane is no lane; lanes are written like bitget:main" ;; esac
  printf %s "$lane" | grep -Eqx '(bitget|bybit|bingx):[a-z][a-z0-9_]{0,31}' ||
    fail "$lane is no lane; lanes are written like bitget:main"
done

print_users() {
  printf 'user default reset off\n'
  for role in admin worker operator auditor jobs metrics rq-desk replica sentinel; do
    user "$role" "$role"
  done
  for lane in "$@"; do
    user "producer-$(printf %s "$lane" | tr : -)" producer "$lane"
  done
}

# All of it or nothing: half a file would lock users out.
users=$(print_users "$@")
printf '%s\n' "$users"
