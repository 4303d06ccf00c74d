# Files, served as they are.
import ../mk-preview.nix {
  packages = pkgs: [ pkgs.caddy ];
  run = "exec caddy file-server --listen :$PORT --root public";
  port = 8080;
}
