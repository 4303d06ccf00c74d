# A preview: its options, the units of its apps, and its metadata in the form of the contract, as `system.build.previewMeta`
# and /etc/preview-meta.json.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  inherit (import ./preview-app/types.nix { inherit lib; }) app hostPrefix route;
  preview = config.innkeeper.preview;
  apps = if preview == null then [ ] else import ./preview-app/list.nix { inherit lib; } preview;

  # The optional fields only where they are set: earlier hosts do not know them.
  plainRoute =
    route:
    {
      inherit (route) path port;
    }
    // lib.optionalAttrs route.stripPrefix { stripPrefix = true; }
    // lib.optionalAttrs (route.protocol != "http") { inherit (route) protocol; }
    // lib.optionalAttrs (route.timeout != null) { inherit (route) timeout; }
    // lib.optionalAttrs (route.healthPath != null) { inherit (route) healthPath; };
  plain = {
    inherit (preview)
      setupService
      appServices
      database
      ;
    hostSecrets = lib.unique preview.hostSecrets;
    routes = map plainRoute preview.routes;
    extraHosts = map (host: {
      inherit (host) prefix;
      routes = map plainRoute host.routes;
    }) preview.extraHosts;
  }
  // lib.optionalAttrs (preview.visibility != null) { inherit (preview) visibility; };
  json = builtins.toJSON plain;
  missing = builtins.filter (name: !builtins.hasAttr name config.systemd.services) (
    [ preview.setupService ] ++ preview.appServices
  );
in
{
  options.innkeeper.preview = mkOption {
    default = null;
    description = "The preview; null for a guest that is not a preview, or that writes its metadata itself.";
    type = types.nullOr (
      types.submodule (
        { config, ... }:
        let
          entries = import ./preview-app/list.nix { inherit lib; } config;
        in
        {
          options = {
            app = mkOption {
              type = types.nullOr app;
              default = null;
              description = "The app of a repository with one app. Beside {option}`innkeeper.preview.apps`, it is the app with the name `app`.";
            };
            apps = mkOption {
              type = types.attrsOf app;
              default = { };
              description = "The apps of a repository with several, by name.";
            };
            setupService = mkOption {
              type = types.str;
              description = "The unit that fetches the code and prepares it. Apps set it.";
            };
            appServices = mkOption {
              type = types.listOf types.str;
              description = "The units that run the app. Apps add theirs.";
            };
            database = mkOption {
              type = types.enum [
                "host"
                "container"
              ];
              default = "container";
              description = "`host`: a database on the host, named in DATABASE_URL. `container`: the app sees to it. Apps set it.";
            };
            routes = mkOption {
              type = types.nonEmptyListOf route;
              description = "Routes of the preview's host name. Apps add theirs.";
            };
            hostSecrets = mkOption {
              type = types.listOf (types.strMatching "[A-Z_][A-Z0-9_]*");
              default = [ ];
              description = "Names of secrets that the host may give. The host decides for which repository.";
            };
            extraHosts = mkOption {
              type = types.listOf (
                types.submodule {
                  options = {
                    prefix = mkOption {
                      type = hostPrefix;
                      description = "`<prefix>-<slug>.<domain>` is the name.";
                    };
                    routes = mkOption {
                      type = types.nonEmptyListOf route;
                      description = "Routes of that host name.";
                    };
                  };
                }
              );
              default = [ ];
              description = "More host names. Apps add theirs.";
            };
            visibility = mkOption {
              type = types.nullOr (
                types.enum [
                  "public"
                  "team"
                  "private"
                ]
              );
              default = null;
              description = "The visitors: `public` (everybody), `team` (people who may log in on the host) or `private` (people who may read the repository). The host's setting applies if it is stricter, or with null.";
            };
          };
          config = lib.mkIf (entries != [ ]) (import ./preview-app/meta.nix { inherit lib; } entries);
        }
      )
    );
  };

  config = lib.mkMerge [
    (lib.mkIf (preview != null) {
      assertions = import ./preview-app/asserts.nix { inherit lib; } apps ++ [
        {
          assertion = missing == [ ];
          message = "innkeeper.preview names ${lib.concatStringsSep ", " missing}, and there is no such unit. Declare it in systemd.services, or correct setupService and appServices.";
        }
        {
          # The host ignores the request of a preview.
          assertion = !config.innkeeper.guest.nix.enable;
          message = "innkeeper.guest.nix is for agents: the host gives previews no Nix. Remove innkeeper.guest.nix.enable, or set it to false.";
        }
      ];
      # As an attribute set it is known without a build, so that `preview check` sees it.
      system.build.previewMeta = if apps == [ ] then pkgs.writeText "preview-meta.json" json else plain;
      environment.etc."preview-meta.json".text = json;
    })
    (lib.mkIf (apps != [ ]) {
      users.users.preview = {
        isNormalUser = lib.mkDefault true;
        uid = lib.mkDefault 1000;
        # NixOS' range begins at 100000, and a guest has 65536 ids.
        autoSubUidGidRange = lib.mkOverride 900 false;
      };
      systemd = import ./preview-app/services.nix { inherit lib pkgs; } apps;
      # Programs that package managers download expect the loader and the libraries of a usual Linux.
      programs.nix-ld.enable = lib.mkDefault true;
    })
  ];
}
