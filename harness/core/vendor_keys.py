"""Forms of the keys of known vendors: data for privacy_patterns.

A key is one of the prefixes and at least `length` characters after it. Only the form is known; no
key is ever tested. A new vendor is one more row, with where its form is written down and when it
was looked up.
"""
from __future__ import annotations

from typing import NamedTuple

# Characters after a prefix.
ALNUM, WORD, HEX, BASE64, DOTTED, PATH = (
    "A-Za-z0-9", r"A-Za-z0-9_\-", "a-fA-F0-9", "A-Za-z0-9+/=", r"A-Za-z0-9_.=\-",
    r"A-Za-z0-9+/_.\-")

GITLEAKS = "https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml, 2026-07-22"
TRUFFLEHOG = "https://github.com/trufflesecurity/trufflehog/tree/main/pkg/detectors, 2026-11-29"
USED = "keys that were published by mistake in public repositories, 2026-11-29"


class VendorKey(NamedTuple):
    """How the keys of a vendor look. characters: a class of a regular expression; source: where the
    form is from, and the day of that version."""

    vendor: str
    prefixes: tuple[str, ...]
    characters: str
    length: int
    source: str


def _row(vendor: str, prefixes: str, characters: str, length: int, source: str) -> VendorKey:
    return VendorKey(vendor, tuple(prefixes.split()), characters, length, source)


VENDOR_KEYS = (
    # --- models and inference
    _row("Hugging Face", "hf_ api_org_", ALNUM, 30, GITLEAKS),
    _row("Groq", "gsk_", ALNUM, 32, USED),
    _row("xAI", "xai-", WORD, 60, TRUFFLEHOG),
    _row("NVIDIA", "nvapi-", WORD, 40, TRUFFLEHOG),
    _row("Replicate", "r8_", ALNUM, 30, TRUFFLEHOG),
    _row("Perplexity", "pplx-", ALNUM, 30, GITLEAKS),
    _row("Together", "tgp_v1_", WORD, 24, USED),
    _row("Cerebras", "csk-", ALNUM, 24, USED),
    _row("Fireworks", "fw_", ALNUM, 20, USED),
    _row("Voyage", "pa-", WORD, 40, USED),
    _row("Jina", "jina_", WORD, 40, USED),
    _row("Tavily", "tvly-", WORD, 20, TRUFFLEHOG),
    _row("Firecrawl", "fc-", HEX, 32, USED),
    _row("RunPod", "rpa_", ALNUM, 32, USED),
    _row("Modal", "ak- as- wk- ws-", ALNUM, 22, USED),
    _row("Anyscale", "esecret_", ALNUM, 20, USED),
    _row("LangSmith", "lsv2_pt_ lsv2_sk_", WORD, 32, TRUFFLEHOG),
    _row("Langfuse", "sk-lf- pk-lf-", WORD, 32, TRUFFLEHOG),
    _row("Weights & Biases", "wandb_v1_", WORD, 32, USED),
    _row("ElevenLabs, Novita", "sk_", ALNUM, 32, TRUFFLEHOG),
    _row("Stability, OpenAI sessions", "sess-", ALNUM, 32, USED),
    _row("Pinecone", "pcsk_", WORD, 40, USED),
    _row("Featherless", "rc_", HEX, 32, USED),
    _row("SiliconFlow, Scaleway", "SCW", ALNUM, 17, TRUFFLEHOG),
    # --- code, packages, containers
    _row("GitHub", "ghp_ gho_ ghu_ ghs_ ghr_", ALNUM, 36, GITLEAKS),
    _row("GitHub", "github_pat_", WORD, 50, GITLEAKS),
    _row("GitLab", "glpat- gldt- glrt- glptt- glft- glsoat- glcbt- glffct- glimt- glagent- gloas-",
         DOTTED, 20, GITLEAKS),
    _row("GitLab runner registration", "GR1348941", WORD, 20, GITLEAKS),
    _row("npm", "npm_", ALNUM, 36, GITLEAKS),
    _row("PyPI", "pypi-AgE", WORD, 50, GITLEAKS),
    _row("RubyGems", "rubygems_", HEX, 48, GITLEAKS),
    _row("crates.io", "cio", ALNUM, 32, TRUFFLEHOG),
    _row("Docker", "dckr_pat_ dckr_oat_", WORD, 20, USED),
    _row("Artifactory", "AKCp cmVmd", ALNUM, 55, GITLEAKS),
    _row("Bitbucket, Atlassian", "ATATT3 ATBB ATCTT3", DOTTED, 24, GITLEAKS),
    _row("Sourcegraph", "sgp_", WORD, 40, GITLEAKS),
    _row("Sentry", "sntrys_ sntryu_", PATH + "=", 60, GITLEAKS),
    _row("Postman", "PMAK-", WORD, 50, GITLEAKS),
    _row("SonarQube", "sqp_ squ_ sqa_", HEX, 40, TRUFFLEHOG),
    # --- clouds and infrastructure
    _row("AWS access key id", "AKIA ASIA ABIA ACCA", "A-Z2-7", 16, GITLEAKS),
    _row("AWS Bedrock", "ABSK bedrock-api-key-", BASE64, 40, GITLEAKS),
    _row("Google API", "AIza", WORD, 35, GITLEAKS),
    _row("Google OAuth", "ya29.", PATH, 40, TRUFFLEHOG),
    _row("Google OAuth client", "GOCSPX-", WORD, 20, TRUFFLEHOG),
    _row("Alibaba Cloud", "LTAI", ALNUM, 12, GITLEAKS),
    _row("Tencent Cloud", "AKID", ALNUM, 32, TRUFFLEHOG),
    _row("Yandex Cloud", "AQVN t1.", PATH + "=", 35, TRUFFLEHOG),
    _row("DigitalOcean", "dop_v1_ doo_v1_ dor_v1_", HEX, 60, GITLEAKS),
    _row("Databricks", "dapi", HEX, 32, GITLEAKS),
    _row("Fly.io", "fo1_ fm1a_ fm1r_ fm2_", BASE64 + r"_\-", 40, GITLEAKS),
    _row("Heroku", "HRKU-", WORD, 36, GITLEAKS),
    _row("Netlify", "nfp_", ALNUM, 36, TRUFFLEHOG),
    _row("Supabase", "sbp_ sb_secret_", WORD, 24, TRUFFLEHOG),
    _row("PlanetScale", "pscale_tkn_ pscale_oauth_ pscale_pw_", DOTTED, 32, GITLEAKS),
    _row("Pulumi", "pul-", HEX, 40, GITLEAKS),
    _row("Terraform", "atlasv1.", DOTTED, 50, GITLEAKS),
    _row("Vault", "hvs. hvb. hvr.", WORD, 24, GITLEAKS),
    _row("Doppler", "dp.pt. dp.st. dp.ct. dp.sa.", DOTTED, 40, GITLEAKS),
    _row("1Password", "ops_eyJ", BASE64, 100, GITLEAKS),
    _row("OpenShift", "sha256~", WORD, 43, GITLEAKS),
    _row("Tailscale", "tskey-auth- tskey-api- tskey-client- tskey-webhook- tskey-scim-", WORD, 8,
         TRUFFLEHOG),
    _row("age", "AGE-SECRET-KEY-1", "A-Z0-9", 50, GITLEAKS),
    _row("Grafana", "glc_ glsa_", WORD + "+/=", 32, GITLEAKS),
    _row("New Relic", "NRAK- NRII- NRJS-", WORD, 19, TRUFFLEHOG),
    _row("Dynatrace", "dt0c01.", DOTTED, 60, GITLEAKS),
    _row("Prefect", "pnu_ pnb_", ALNUM, 36, GITLEAKS),
    # --- messages, payment, offices
    _row("Slack", "xoxb- xoxp- xoxa- xoxo- xoxr- xoxs- xoxe- xoxe.xoxp- xapp-", WORD, 10, GITLEAKS),
    _row("Stripe", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", ALNUM, 16, GITLEAKS),
    _row("Square", "EAAA sq0atp- sq0csp-", WORD, 22, GITLEAKS),
    _row("Shopify", "shpat_ shpca_ shppa_ shpss_", HEX, 32, GITLEAKS),
    _row("SendGrid", "SG.", DOTTED, 60, GITLEAKS),
    _row("Brevo", "xkeysib- xsmtpsib-", WORD, 60, GITLEAKS),
    _row("Mailgun", "key-", HEX, 32, TRUFFLEHOG),
    _row("Twilio", "SK AC", HEX, 32, GITLEAKS),
    _row("Notion", "ntn_ secret_", ALNUM, 40, GITLEAKS),
    _row("Linear", "lin_api_ lin_oauth_", ALNUM, 40, GITLEAKS),
    _row("Figma", "figd_ figo_", WORD, 36, TRUFFLEHOG),
    _row("Airtable", "pat", ALNUM + ".", 70, GITLEAKS),
    _row("Dropbox", "sl.", WORD, 100, TRUFFLEHOG),
)
