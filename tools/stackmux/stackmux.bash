# SPDX-License-Identifier: GPL-2.0
# bash completion of stackmux(1)

_stackmux()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} words=

	if [ "$COMP_CWORD" -eq 1 ]; then
		words='run stat top doctor --help'
	else
		case ${COMP_WORDS[1]} in
		run)
			local i

			for ((i = 2; i < COMP_CWORD; i++)); do
				case ${COMP_WORDS[i]} in
				--) ((i++)); break ;;
				-*) ;;
				*)  break ;;
				esac
			done
			if [ "$i" -lt "$COMP_CWORD" ] && declare -F _command_offset >/dev/null; then
				_command_offset "$i"
				return
			fi
			case $cur in
			-*) words='--try --' ;;
			*)  mapfile -t COMPREPLY < <(compgen -c -- "$cur"); return ;;
			esac ;;
		stat)
			case $cur in
			-*) words=--json ;;
			*)  words=$(cd /proc && echo [0-9]*) ;;
			esac ;;
		top)
			case $prev in
			-d|--delay|-n|--count) ;;
			*) words='--delay --count --batch' ;;
			esac ;;
		doctor)
			words=$(cd /proc && echo [0-9]*) ;;
		esac
	fi
	mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _stackmux stackmux
