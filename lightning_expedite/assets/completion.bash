# Completes the words after "python -m lightning_expedite" in bash and in zsh.

_lightning_expedite() {
  COMPREPLY=()
  if [[ "${COMP_WORDS[1]}" != -m || "${COMP_WORDS[2]}" != lightning_expedite || $COMP_CWORD -lt 3 ]]; then
    if [[ -n "$_lightning_expedite_before" ]]; then
      "$_lightning_expedite_before" "$@"
    fi
    return
  fi
  local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD - 1]}" start="" command="" words=""
  if [[ "$current" == "=" ]]; then # bash makes three words of --option=value, zsh one
    current=""
  elif [[ "$before" == "=" ]]; then
    before="${COMP_WORDS[COMP_CWORD - 2]}"
  elif [[ "$current" == --*=* ]]; then
    before="${current%%=*}"
    start="$before="
    current="${current#*=}"
  fi
  if ((COMP_CWORD > 3)); then
    command="${COMP_WORDS[3]}"
  fi
  if ((COMP_CWORD > 4)) && [[ -n "$(_lightning_expedite_options "$command ${COMP_WORDS[4]}")" ]]; then
    command="$command ${COMP_WORDS[4]}"
  fi
  if [[ "$before" == -* && "$before" != -m ]]; then
    words="$(_lightning_expedite_values "$command" "$before")"
  fi
  if [[ -z "$words" && "$current" == -* ]]; then
    words="$(_lightning_expedite_options "$command")"
  elif [[ -z "$words" && "$before" != --* ]]; then
    words="$(_lightning_expedite_kinds "$command")"
  fi
  if [[ -n "$words" ]]; then # else the shell completes names of files
    COMPREPLY=($(compgen -P "$start" -W "$words" -- "$current"))
  fi
}
