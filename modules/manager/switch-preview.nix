# Shows what a switch would restart or cut, before it begins, and writes the facts for it that no other file of a system
# has in a form for programs.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  cfg = config.services.innkeeper;
  inherit (config.networking) firewall nftables;

  ports =
    protocol: single: ranges:
    map (port: "${protocol}/${toString port}") single
    ++ map (range: "${protocol}/${toString range.from}-${toString range.to}") ranges;

  certificate = cfg.caddy.certificate or { };

  # Read by crates/innkeeper-cli/src/switch/facts.rs.
  facts = {
    firewall = {
      backend =
        if !firewall.enable then
          "none"
        else if nftables.enable then
          "nftables"
        else
          "iptables";
      flushRuleset = nftables.enable && nftables.flushRuleset;
      ports = lib.optionals firewall.enable (
        ports "tcp" firewall.allowedTCPPorts firewall.allowedTCPPortRanges
        ++ ports "udp" firewall.allowedUDPPorts firewall.allowedUDPPortRanges
      );
      guestPorts =
        ports "tcp" (cfg.firewall.guestTCPPorts or [ ]) [ ]
        ++ ports "udp" (cfg.firewall.guestUDPPorts or [ ]) [ ];
    };
    certificate =
      if !(cfg.caddy.enable or false) then
        null
      else if certificate.internal then
        "internal"
      else if certificate.acme != null then
        "acme"
      else
        "files";
  };

  # `system` and `action` are expressions of bash. A failure of the program itself never stops a switch.
  preview = system: action: refused: ''
    # A boot has no system to compare with.
    if [[ -e /run/current-system && ${action} != boot ]]; then
      innkeeper_status=0
      # It queries systemd with busctl.
      PATH="${lib.makeBinPath [ pkgs.systemd ]}:''${PATH-}" ${lib.getExe' pkgs.coreutils "timeout"} 120 ${lib.getExe' cfg.package "innkeeper"} switch-preview --quiet ${system} >&2 || innkeeper_status=$?
      case "$innkeeper_status" in
        0) ;;
        4) ${refused} ;;
        *) echo "innkeeper switch-preview failed with status $innkeeper_status: the effects of the switch on guests are unknown." >&2 ;;
      esac
    fi
  '';
in
{
  options.services.innkeeper.switchPreview = lib.mkOption {
    type = lib.types.enum [
      "warn"
      "refuse"
      "off"
    ];
    default = "warn";
    description = ''
      Whether a switch first shows what it would restart or cut, as `innkeeper switch-preview` does. `warn` never stops a
      switch. `refuse` stops one that would cut off guests, routes or the daemon, before it begins; `NIXOS_NO_CHECK=1`
      overrides that.
    '';
  };

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      { environment.etc."innkeeper/host.json".text = builtins.toJSON facts; }
      (lib.mkIf (cfg.switchPreview != "off") (
        if (options.system or { }) ? preSwitchChecks then
          {
            system.preSwitchChecks.innkeeper = preview ''"$1"'' ''"''${2-}"'' (
              if cfg.switchPreview == "refuse" then
                ''
                  echo 'The switch is refused (services.innkeeper.switchPreview). NIXOS_NO_CHECK=1 overrides this.' >&2
                      exit 1''
              else
                ":"
            );
          }
        else
          {
            # Before NixOS 25.05. A switch has stopped units by then, so this can only warn; `dry-activate` shows it in time.
            system.activationScripts.innkeeper-switch-preview = {
              supportsDryActivation = true;
              text = preview ''"$systemConfig"'' ''"''${NIXOS_ACTION-boot}"'' ":";
            };
          }
      ))
    ]
  );
}
