# Checks that the committed reference matches the modules.
{
  pkgs,
  generated,
  committed,
}:
pkgs.runCommand "innkeeper-options-reference" { } ''
  diff -u ${committed} ${generated}/share/doc/innkeeper/options.md || {
    echo "docs/options.md is out of date: nix build .#docs && cp result/share/doc/innkeeper/options.md docs/" >&2
    exit 1
  }
  touch $out
''
