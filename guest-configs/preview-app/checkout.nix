# Commands, in bash, that check out the preview's commit in $HOME/app, and stay in that folder.
''
  cd "$HOME"
  # Git reads the token on demand, so that the token is in no argument and in no file of the checkout.
  git config --global credential.helper '!f() { echo username=x-access-token; echo "password=$(cat /etc/preview-token)"; }; f'
  [ -d app/.git ] || git init --quiet app
  cd app
  git config remote.origin.url "$PREVIEW_REPO_URL"
  # Exactly this commit: the branch may have moved, and a fork's commits are approved one by one. After a restart the commit
  # is present. Servers that do not serve commits by hash serve it with the branch.
  wanted=''${PREVIEW_COMMIT:-}
  if [ -z "$wanted" ] ||
    ! { git cat-file -e "$wanted^{commit}" 2> /dev/null || git fetch --quiet origin "$wanted"; }; then
    git fetch --quiet origin "$PREVIEW_BRANCH"
  fi
  git reset --quiet --hard "''${wanted:-FETCH_HEAD}"
''
