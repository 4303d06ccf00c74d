# A development machine for coding agents.
{
  lib,
  pkgs,
  ...
}:
let
  # A guest has 65536 ids unless it was created with more, so NixOS' own range from 100000 on does not exist in it. This one lies
  # between the users of NixOS and the dynamic ones of systemd. containers.nix replaces it.
  nestedIds = {
    start = 32768;
    count = 28416;
  };
  # Programs that not every nixpkgs has under this name.
  whereThere = names: lib.concatMap (name: lib.optional (pkgs ? ${name}) pkgs.${name}) names;
  cliNames = [
    "claude-code"
    "codex"
    "opencode"
  ];
in
{
  imports = [
    ./base.nix
    ./containers.nix
    ./dev-tools.nix
  ];

  # Coding agents' own programs, and nothing else, may be unfree.
  nixpkgs.config.allowUnfreePredicate = package: builtins.elem (lib.getName package) cliNames;

  users.users.agent = {
    isNormalUser = true;
    # Owner of the credentials that the daemon writes: credentials.user_id and group_id in its configuration.
    uid = 1000;
    group = "users";
    extraGroups = [ "wheel" ];
    subUidRanges = lib.mkDefault [
      {
        startUid = nestedIds.start;
        inherit (nestedIds) count;
      }
    ];
    subGidRanges = lib.mkDefault [
      {
        startGid = nestedIds.start;
        inherit (nestedIds) count;
      }
    ];
    # Keys are written by the daemon to /etc/ssh/authorized_keys.d/agent, so none may be declared here.
  };
  # The guest's root is nobody on the host.
  security.sudo.wheelNeedsPassword = false;

  environment.systemPackages =
    with pkgs;
    [
      cargo
      chromium
      clippy
      curl
      fd
      gcc
      gh
      git
      gnumake
      go
      jq
      nodejs_22
      openssl
      pkg-config
      python3
      ripgrep
      rustc
      rustfmt
      tmux
      unzip
      uv
      vim
    ]
    ++ whereThere cliNames;

  environment.variables = {
    # A browser inside of a user namespace has no sandbox of its own to set up.
    CHROME_BIN = lib.getExe pkgs.chromium;
    PUPPETEER_EXECUTABLE_PATH = lib.getExe pkgs.chromium;
    PUPPETEER_SKIP_DOWNLOAD = "1";
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD = "1";
    RUST_SRC_PATH = "${pkgs.rustPlatform.rustLibSrc or pkgs.rustc}";
  };
  # Files that the daemon writes into /etc/profile.d, which NixOS itself does not read.
  environment.loginShellInit = ''
    for file in /etc/profile.d/*.sh; do
      [ ! -r "$file" ] || . "$file"
    done
  '';

  programs.git = {
    enable = true;
    config = {
      init.defaultBranch = "main";
      user.name = lib.mkDefault "Agent";
      user.email = lib.mkDefault "agent@localhost";
    };
  };

  services.postgresql = {
    enable = true;
    ensureDatabases = [ "agent" ];
    ensureUsers = [
      {
        name = "agent";
        ensureDBOwnership = true;
        ensureClauses.createdb = true;
      }
    ];
    # Only over the socket, by the name of the user.
    enableTCPIP = false;
    authentication = lib.mkForce "local all all peer\n";
  };
}
