#!/usr/bin/env bash
# Runs the tests as other machines and other users would, and prints one table.
#
#   tests/matrix.sh                    every setting, `make test` and `make test-more`, three rounds (hours)
#   tests/matrix.sh --rounds 1 sse busy    some settings, one round
#   tests/matrix.sh --no-more sse      without `make test-more`
#   tests/matrix.sh --short            two older processors over the arithmetic of tests/digits_core, side by side (minutes,
#                                      without the large models)
#
# Settings: plain, sse (no vector units beyond SSE), avx2 (no AVX-512, no bfloat16), busy (four busy processes beside),
# tokyo (TZ=Asia/Tokyo LC_ALL=C), nobody (another user, with a home that cannot be written; needs root), space (a
# checkout and a TMPDIR with a space), 3.11, 3.12, 3.13 (Python versions).
set -uo pipefail
cd "$(dirname "$0")/.."
ROOT=$PWD
SSE="ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41"
AVX2="ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2"
ALL="plain sse avx2 busy tokyo nobody space 3.11 3.12 3.13"
ROUNDS=3 MORE=yes SHORT=no CHOSEN=""
while [ $# -gt 0 ]; do
	case $1 in
	--rounds) ROUNDS=$2; shift ;;
	--no-more) MORE=no ;;
	--short) SHORT=yes ;;
	-h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
	*) case " $ALL " in *" $1 "*) CHOSEN="$CHOSEN $1" ;; *) echo "matrix.sh: no setting '$1'; there are: $ALL" >&2; exit 2 ;; esac ;;
	esac
	shift
done
SCRATCH=$(mktemp -d)
chmod 755 "$SCRATCH" # another user must get in
trap 'rm -rf "$SCRATCH"' EXIT
RESULTS=$SCRATCH/results FAILED=0

# One line of the table from the closing lines of pytest in a log.
row() { # setting, what, log, seconds, exit code
	local passed=0 failed=0 skipped=0 closing
	while read -r closing; do
		for kind in passed failed error skipped; do
			count=$(grep -oE "[0-9]+ ${kind}" <<<"$closing" | grep -oE "[0-9]+" || echo 0)
			case $kind in passed) passed=$((passed + count)) ;; skipped) skipped=$((skipped + count)) ;; *) failed=$((failed + count)) ;; esac
		done
	done < <(grep -E "^=* ?[0-9]+ (passed|failed|skipped|error|deselected).* in [0-9.]+s" "$3")
	[ "$5" -eq 0 ] || FAILED=1
	printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$passed" "$failed" "$skipped" "$(awk "BEGIN {printf \"%.1f\", $4 / 60}")" \
		"$([ "$5" -eq 0 ] && echo green || echo "exit $5")" >>"$RESULTS"
	[ "$5" -eq 0 ] || { echo "--- $1, $2: exit code $5"; grep -A40 -E "^=+ why =+$" "$3" || tail -n 40 "$3"; } >&2
}

print_table() {
	printf 'setting\twhat\tpassed\tfailed\tskipped\tminutes\tresult\n' | cat - "$RESULTS" | expand -t 12,26,36,46,56,66
}

if [ $SHORT = yes ]; then
	for setting in sse avx2; do
		[ $setting = sse ] && names=$SSE rooms="model evaluation" || names=$AVX2 rooms="model evaluation training"
		(
			began=$SECONDS
			# shellcheck disable=SC2086,SC2046 # two assignments, several folders
			env $names .venv/bin/python -m pytest -q -p no:cacheprovider -k "not resnet" $(printf 'tests/digits_core/%s ' $rooms) >"$SCRATCH/$setting.log" 2>&1
			echo "$? $((SECONDS - began))" >"$SCRATCH/$setting.code"
		) &
	done
	wait
	for setting in sse avx2; do
		read -r code took <"$SCRATCH/$setting.code"
		row $setting digits_core "$SCRATCH/$setting.log" "$took" "$code"
	done
	print_table
	exit $FAILED
fi

checkout() { # folder, python: a clone with an environment of its own
	[ -d "$1" ] || git clone --quiet --local "$ROOT" "$1"
	make -C "$1" --no-print-directory env PYTHON="$2" || exit 1
}

for setting in ${CHOSEN:-$ALL}; do
	folder=$ROOT run="" busy=""
	names=()
	case $setting in
	sse) read -ra names <<<"$SSE" ;;
	avx2) read -ra names <<<"$AVX2" ;;
	tokyo) names=(TZ=Asia/Tokyo LC_ALL=C) ;;
	busy) for _ in 1 2 3 4; do while :; do :; done & busy="$busy $!"; done ;;
	space)
		mkdir -p "$SCRATCH/with space/tmp"
		folder="$SCRATCH/with space/check out"
		checkout "$folder" "${PYTHON:-python3}"
		names=("TMPDIR=$SCRATCH/with space/tmp")
		;;
	nobody)
		[ "$(id -u)" -eq 0 ] || { echo "matrix.sh: nobody needs root" >&2; exit 2; }
		folder="$SCRATCH/nobody"
		checkout "$folder" /usr/bin/python3 # root's own Python may be out of reach
		mkdir -p "$SCRATCH/nobody-tmp"
		chown -R nobody "$folder" "$SCRATCH/nobody-tmp"
		run="setpriv --reuid=nobody --regid=nogroup --clear-groups"
		names=(HOME=/nonexistent "TMPDIR=$SCRATCH/nobody-tmp" USER=nobody LOGNAME=nobody)
		;;
	3.*)
		folder="$SCRATCH/python$setting"
		checkout "$folder" "$(command -v "python$setting")"
		;;
	esac
	what="test"
	[ $MORE = yes ] && what="test test-more"
	for round in $(seq "$ROUNDS"); do
		for target in $what; do
			log="$SCRATCH/$setting-$target-$round.log" began=$SECONDS
			$run env "${names[@]}" make -C "$folder" --no-print-directory "$target" >"$log" 2>&1
			row "$setting" "$target $round" "$log" $((SECONDS - began)) $?
			tail -n 1 "$RESULTS" >&2
		done
	done
	# shellcheck disable=SC2086 # several processes
	[ -z "$busy" ] || kill $busy
	[ "$folder" = "$ROOT" ] || rm -rf "$folder"
done
print_table
exit $FAILED
