//! Examples for the commands about access from other machines.

use super::Examples;

pub(super) const EXAMPLES: Examples = &[
    (
        "preview share",
        &[(
            "preview share web-7 --expires 12h",
            "Print a link with which a person may visit a preview for twelve hours.",
        )],
    ),
    (
        "preview shares",
        &[(
            "preview shares web-7",
            "Show the links and tokens of a preview, with their numbers.",
        )],
    ),
    (
        "preview unshare",
        &[(
            "preview unshare web-7 3",
            "Revoke a link or a token, also for those who have used it.",
        )],
    ),
    (
        "preview token",
        &[(
            "preview token web-7 --quiet",
            "Print a token for the tests of CI, and nothing else.",
        )],
    ),
    (
        "innkeeper secret set",
        &[(
            "innkeeper secret set octo/web API_KEY",
            "Set a secret of a repository; its value comes from standard input or a prompt.",
        )],
    ),
    (
        "innkeeper secret list",
        &[(
            "innkeeper secret list octo/web",
            "Show the names of the secrets of a repository, never their values.",
        )],
    ),
    (
        "innkeeper secret rm",
        &[(
            "innkeeper secret rm octo/web API_KEY",
            "Remove a secret of a repository.",
        )],
    ),
    (
        "innkeeper audit",
        &[
            (
                "innkeeper audit --since 24h",
                "Show the changes of the last day.",
            ),
            (
                "innkeeper audit --actor alice --json",
                "Show the changes with the token alice, for scripts.",
            ),
        ],
    ),
    (
        "innkeeper token create",
        &[
            (
                "innkeeper token create alice --expires 30d",
                "Create a token for a developer, and print it once.",
            ),
            (
                "innkeeper token create ci --repo octo/web --quiet",
                "Create a token for the previews of one repository, and print nothing else, for scripts.",
            ),
        ],
    ),
    (
        "innkeeper token list",
        &[(
            "innkeeper token list",
            "Show all valid tokens, with their last use.",
        )],
    ),
    (
        "innkeeper token revoke",
        &[(
            "innkeeper token revoke alice",
            "Revoke a token. It is refused from then on.",
        )],
    ),
    (
        "innkeeper login",
        &[
            (
                "innkeeper login https://api.example.org",
                "Log in at a gateway, and use it for the next commands.",
            ),
            (
                "innkeeper login --context office",
                "Log in again at the gateway of the context office.",
            ),
        ],
    ),
    (
        "innkeeper logout",
        &[("innkeeper logout", "End the session of the context in use.")],
    ),
    (
        "innkeeper context add",
        &[
            (
                "innkeeper context add office --url https://api.example.org",
                "Add a gateway, with a token from standard input.",
            ),
            (
                "innkeeper context add ci --url https://api.example.org --token-file /run/secrets/innkeeper",
                "Add a gateway whose token another program renews in a file.",
            ),
        ],
    ),
    (
        "innkeeper context use",
        &[
            (
                "innkeeper context use office",
                "Use the gateway of the context office for the next commands.",
            ),
            (
                "innkeeper context use local",
                "Use this machine's own daemon again.",
            ),
        ],
    ),
    (
        "innkeeper context list",
        &[(
            "innkeeper context list",
            "Show all contexts, which one is in use, and why.",
        )],
    ),
    (
        "innkeeper context rm",
        &[(
            "innkeeper context rm office",
            "Remove a context and its token.",
        )],
    ),
];
