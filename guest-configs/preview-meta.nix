# A preview's metadata, in the form that repositories know: /etc/preview-meta.json, and the same as
# `system.build.previewMeta`.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  meta = config.innkeeper.preview;

  route = types.submodule {
    options = {
      path = mkOption {
        type = types.strMatching "/.*";
        example = "/api/*";
        description = "The path, `/` for everything else.";
      };
      port = mkOption {
        type = types.port;
        description = "The port that the app listens on.";
      };
      stripPrefix = mkOption {
        type = types.bool;
        default = false;
        description = "Strip the prefix from the path before the app receives the request.";
      };
    };
  };
  # As earlier installations wrote it: the field only where it is set.
  plainRoute =
    route:
    { inherit (route) path port; } // lib.optionalAttrs route.stripPrefix { stripPrefix = true; };
  plain = {
    inherit (meta)
      setupService
      appServices
      database
      hostSecrets
      ;
    routes = map plainRoute meta.routes;
    extraHosts = map (host: {
      inherit (host) prefix;
      routes = map plainRoute host.routes;
    }) meta.extraHosts;
  };
  json = builtins.toJSON plain;
in
{
  options.innkeeper.preview = mkOption {
    default = null;
    description = "The preview's metadata; null for a guest that is not a preview, or that writes its metadata itself.";
    type = types.nullOr (
      types.submodule {
        options = {
          setupService = mkOption {
            type = types.str;
            description = "The unit that fetches the code and prepares it.";
          };
          appServices = mkOption {
            type = types.listOf types.str;
            description = "The units that run the app.";
          };
          database = mkOption {
            type = types.enum [
              "host"
              "container"
            ];
            default = "container";
            description = "`host`: a database on the host, named in DATABASE_URL. `container`: the app sees to it.";
          };
          routes = mkOption {
            type = types.nonEmptyListOf route;
            description = "Routes of the preview's host name.";
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
                    type = types.strMatching "[a-z0-9]([a-z0-9-]*[a-z0-9])?";
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
            description = "More host names.";
          };
        };
      }
    );
  };

  config = lib.mkIf (meta != null) {
    assertions = [
      {
        assertion =
          builtins.hasAttr meta.setupService config.systemd.services
          && lib.all (name: builtins.hasAttr name config.systemd.services) meta.appServices;
        message = "innkeeper.preview names ${
          lib.concatStringsSep ", " (
            builtins.filter (name: !builtins.hasAttr name config.systemd.services) (
              [ meta.setupService ] ++ meta.appServices
            )
          )
        }, and there is no such unit. Declare it in systemd.services, or correct setupService and appServices.";
      }
    ];
    system.build.previewMeta = pkgs.writeText "preview-meta.json" json;
    environment.etc."preview-meta.json".text = json;
  };
}
