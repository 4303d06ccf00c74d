{
  imports = [
    ./manager
    ./network.nix
    ./firewall.nix
    ./builds.nix
    ./storage.nix
    ./caddy.nix
    ./postgresql.nix
    ./previews.nix
    ./secrets.nix
    ./tailscale.nix
    ./webhook.nix
  ];
}
