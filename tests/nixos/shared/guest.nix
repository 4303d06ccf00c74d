# The guest with systemd that the scenarios expect; tests/fixtures/guest is its counterpart on Debian.
{ pkgs, ... }:
{
  systemd.services.web = {
    description = "A web server on port 80";
    wantedBy = [ "multi-user.target" ];
    path = [ pkgs.hostname ];
    script = ''
      mkdir -p /var/www
      [[ -e /var/www/index.html ]] || echo "Hello from $(hostname)." > /var/www/index.html
      echo "A web server on port 80"
      exec ${pkgs.python3}/bin/python3 -m http.server 80 --directory /var/www
    '';
    # `agent logs` shows the console.
    serviceConfig.StandardOutput = "journal+console";
  };
}
