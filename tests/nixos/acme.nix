# A wildcard certificate by ACME, from an authority and a DNS server of the test's own (Pebble, as NixOS' own tests have it). The
# host has the choices that the scenario `previews` does not have: no databases, and iptables.
{
  host,
  pkgs,
  nixpkgs,
  ...
}:
let
  inherit (pkgs) lib;
  domain = "preview.example.org";
  # Tells the DNS server the answer to the authority's question; lego starts it.
  hook =
    address:
    pkgs.writeShellScript "dns-hook" ''
      set -euo pipefail
      case "$1" in
        present) body="{\"host\": \"$2\", \"value\": \"$3\"}" path=set-txt ;;
        *) body="{\"host\": \"$2\"}" path=clear-txt ;;
      esac
      ${pkgs.curl}/bin/curl --fail --silent --data "$body" http://${address}:8055/$path
    '';
in
{
  nodes.dns =
    { nodes, ... }:
    {
      networking.firewall.allowedTCPPorts = [
        53
        8055
      ];
      networking.firewall.allowedUDPPorts = [ 53 ];
      systemd.services.dns = {
        wantedBy = [ "multi-user.target" ];
        serviceConfig.ExecStart = "${pkgs.pebble}/bin/pebble-challtestsrv -dns01 :53 -defaultIPv6 '' -defaultIPv4 ${nodes.inn.networking.primaryIPAddress}";
      };
    };

  nodes.authority =
    { nodes, ... }:
    {
      imports = [ (nixpkgs + "/nixos/tests/common/acme/server") ];
      networking.nameservers = lib.mkForce [ nodes.dns.networking.primaryIPAddress ];
    };

  nodes.inn =
    { nodes, ... }:
    let
      inherit (nodes.authority.test-support.acme) caCert caDomain;
      dnsAddress = nodes.dns.networking.primaryIPAddress;
    in
    {
      imports = [ host ];
      networking = {
        nameservers = lib.mkForce [ dnsAddress ];
        nftables.enable = false;
        hosts.${nodes.authority.networking.primaryIPAddress} = [ caDomain ];
      };
      security.pki.certificateFiles = [ caCert ];
      security.acme.defaults = {
        server = "https://${caDomain}/dir";
        # It would ask the name servers of the domain, which does not exist.
        dnsPropagationCheck = false;
      };
      environment.systemPackages = [ pkgs.openssl ];
      # In a virtual machine, secrets that everybody can read.
      environment.etc = {
        "secrets/acme.env".text = "EXEC_PATH=${hook dnsAddress}";
        "secrets/preview.env".text = "GITHUB_TOKEN=token of a test";
        "secrets/webhook".text = "secret of a test";
      };
      services.innkeeper = {
        previews = {
          enable = true;
          inherit domain;
          databases = false;
          environmentFile = "/etc/secrets/preview.env";
        };
        caddy.certificate.acme = {
          email = "ops@example.org";
          dnsProvider = "exec";
          environmentFile = "/etc/secrets/acme.env";
        };
        webhook.secretFile = "/etc/secrets/webhook";
      };
    };

  testScript =
    { nodes, ... }:
    let
      inherit (nodes.authority.test-support.acme) caDomain;
    in
    ''
      dns.start()
      dns.wait_for_open_port(53)
      authority.start()
      authority.wait_for_open_port(443)
      inn.start()
      inn.wait_for_unit("innkeeper.service")
      inn.wait_for_unit("caddy.service")

      with subtest("Caddy has the certificate that the authority gave"):
          inn.wait_until_succeeds("curl --fail --silent https://${caDomain}:15000/roots/0 > /tmp/authority.pem")
          inn.wait_until_succeeds("curl --fail --silent --cacert /tmp/authority.pem https://webhook.${domain}/health", timeout=300)
          shown = inn.succeed(
              "openssl s_client -connect webhook.${domain}:443 -servername webhook.${domain} < /dev/null 2> /dev/null"
              " | openssl x509 -noout -ext subjectAltName"
          )
          assert "DNS:*.${domain}" in shown, shown

      with subtest("there is no database, and no rule for one"):
          inn.fail("systemctl cat postgresql.service")
          rules = inn.succeed("iptables --list-rules nixos-fw")
          assert "--src-group" in rules, rules
          assert "5432" not in rules, rules

      with subtest("agents work as on every host"):
          inn.succeed("agent list")
    '';
}
