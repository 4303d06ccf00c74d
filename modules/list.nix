# The modules by name. `default` imports all of them; each of the others works alone.
{
  default = ./default.nix;
  manager = ./manager;
  network = ./network.nix;
  firewall = ./firewall.nix;
  backup = ./backup.nix;
  builds = ./builds.nix;
  storage = ./storage.nix;
  caddy = ./caddy.nix;
  dns = ./dns.nix;
  gateway = ./gateway.nix;
  memory = ./memory.nix;
  metrics = ./metrics.nix;
  pages = ./pages.nix;
  people = ./people.nix;
  postgresql = ./postgresql.nix;
  prefetch = ./prefetch.nix;
  previews = ./previews.nix;
  quotas = ./quotas.nix;
  secrets = ./secrets.nix;
  tailscale = ./tailscale.nix;
  webhook = ./webhook.nix;
}
