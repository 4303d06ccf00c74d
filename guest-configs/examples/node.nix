# Node.js without a database.
import ../mk-preview.nix {
  packages = pkgs: [ pkgs.nodejs_22 ];
  setup = "npm ci";
  run = "exec node server.js";
  port = 3000;
}
