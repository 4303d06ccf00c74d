# A preview of a Node.js app with a database on the host, which the flake builds. Repositories bring their own preview-config.nix.
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
