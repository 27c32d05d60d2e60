#!/bin/sh
# Runs an ignored test of the program that is named in the file `this` beside the link that this was started through.
# It is never written anew: a file that was just written cannot be executed while another test starts a process.
read -r THIS < "${0%/*}/this"
ARGS="$*" exec "$THIS" --exact "${0##*/}" --ignored --nocapture
