# The agents of `nix run INNKEEPER#demo`: NixOS with a web server on port 80. tests/fixtures/guest is its counterpart in
# `make demo`.
{ pkgs, ... }:
{
  systemd.services.web = {
    description = "A web server on port 80";
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.hostname ];
    script = ''
      mkdir -p /var/www
      [[ -e /var/www/index.html ]] || echo "Hello from $(hostname)." > /var/www/index.html
      exec ${pkgs.busybox}/bin/busybox httpd -f -p 80 -h /var/www
    '';
  };
}
