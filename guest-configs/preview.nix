# The preview that a repository without one of its own gets: Node.js, a database on the host, port 3000.
import ./mk-preview.nix {
  packages = pkgs: [ pkgs.nodejs_22 ];
  setup = ''
    npm ci
    npm run build --if-present
  '';
  run = "exec npm start";
  port = 3000;
  database = "host";
}
