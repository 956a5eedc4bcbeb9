#!/bin/sh
# Trains the recipe of this folder on this machine, without a page, and leaves the run in trained/, to be copied into
# `runs` of the workspace at home.
# Written by LoRA Garage's command `pack`. Started again, after a machine that went away, it goes on from the newest checkpoint.
# Arguments go to `train`, for example: sh bootstrap.sh --set train.num_train_epochs=1
set -u
cd -- "$(dirname -- "$0")" || exit 1

python=
for candidate in python3.12 python3.13 python3.11 python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        python=$candidate
        break
    fi
done

garage() { # COMMAND...: with the Python that is here, else with uv's
    if [ -n "$python" ]; then "$python" app/launch.py "$@"; else sh app/start.sh "$@"; fi
}

here=$PWD
parent=$(cat parent.txt 2>/dev/null) # the run that is continued, which lies beside the one that is trained

newest() {
    ls -d "$here"/workspace/runs/[0-9]*/ 2>/dev/null | grep -vF "/runs/${parent:-none}/" | sort | tail -n 1
}

run=$(newest)
if [ -n "$run" ]; then
    run=$(basename "$run")
    echo "bootstrap: going on with $run"
    garage resume "$run" --workspace "$here/workspace"
else
    garage train "$here/recipe.yaml" --workspace "$here/workspace" ${parent:+--from "$parent"} "$@"
fi
status=$? # 0 completed, 1 failed, 2 bad recipe, 3 stopped, 4 paused

run=$(newest)
[ -n "$run" ] || exit "$status"
rm -rf "$here/trained"
mkdir "$here/trained" && cp -R "${run%/}" "$here/trained/" || exit 1
exit "$status"
