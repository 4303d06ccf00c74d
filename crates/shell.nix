# Everything that `make check` and `make test` need (.ci/deps, in Debian's words).
{ pkgs, craneLib }:
craneLib.devShell {
  packages = with pkgs; [
    busybox
    caddy
    cargo-cyclonedx
    cargo-deny
    cargo-nextest
    curl
    deadnix
    git
    glibc.static
    gnumake
    iproute2
    jq
    mypy
    nftables
    nix
    nixfmt
    openssh
    openssl
    postgresql
    python3
    shellcheck
    statix
    systemd
    util-linux
  ];
}
