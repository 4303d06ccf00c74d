
# Names of guests behind the commands that take one. Without innkeeperd there are none.
_PROGRAM_with_names() {
  local current=${COMP_WORDS[COMP_CWORD]} command='' word at
  for ((at = 1; at < COMP_CWORD; at++)); do
    word=${COMP_WORDS[at]}
    case "$word" in
      --socket | --url | --context) at=$((at + 1)) ;;
      -*) ;;
      *)
        command=$word
        break
        ;;
    esac
  done
  _PROGRAM "$@"
  [[ "$current" != -* ]] || return 0
  case "$command" in
    ONE) ((at == COMP_CWORD - 1)) || return 0 ;;
    MANY) ;;
    *) return 0 ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$(PROGRAM list --quiet 2> /dev/null)" -- "$current")
}
complete -F _PROGRAM_with_names -o nosort -o bashdefault -o default PROGRAM
