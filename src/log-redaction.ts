/**
 * What may be written of one line of the log, JSON in and out: without private keys, passphrases, tokens of any kind and
 * credentials of requests, wherever they stand: in a message, below any name, in an error or its cause. Whatever came to
 * be text has passed here, so that nobody who logs has to think of it. Long text is cut. It never throws.
 */
export function redactLine(line: string): string {
  if (line.length <= maxText && !suspicious.test(line)) return line;
  try {
    return `${JSON.stringify(redactValue(JSON.parse(line), 0))}\n`;
  } catch {
    return '{"level":50,"msg":"a log line could not be read and was left out"}\n';
  }
}

/** The same for a text. */
export function redactText(text: string): string {
  let kept = text.length > maxText ? `${text.slice(0, maxText)}…[+${text.length - maxText}]` : text;
  for (const [pattern, instead] of patterns) kept = kept.replace(pattern, instead);
  return kept;
}

function redactValue(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value !== 'object' || value === null) return value;
  if (depth > maxDepth) return redacted;
  if (Array.isArray(value)) {
    // A key line by line: what stands between its first line and its last has no form of its own.
    if (isBytes(value) || value.some((one) => typeof one === 'string' && keyLine.test(one))) return redacted;
    // Raw headers are names and values in turn.
    return value.map((one, at) => (isSecretName(value[at - 1]) ? redacted : redactValue(one, depth + 1)));
  }
  const entries = Object.entries(value);
  const { type, data, kty, name: label, key, header } = value as Readonly<Record<string, unknown>>;
  if (type === 'Buffer' && Array.isArray(data)) return redacted;
  const isLabelled = [label, key, header].some(isSecretName);
  // How typed arrays become JSON.
  if (entries.length >= shortestSecret && entries.every(([name], at) => name === String(at))) return redacted;
  return Object.fromEntries(
    entries.map(([name, inner]) => [
      // A name may be as much of an input as a value.
      redactText(name),
      (isSecretName(name) && inner !== null && typeof inner !== 'boolean') ||
      (isLabelled && valueNames.test(name)) ||
      (kty !== undefined && keyMembers.test(name))
        ? redacted
        : redactValue(inner, depth + 1),
    ]),
  );
}

function isSecretName(name: unknown): boolean {
  // `clientSecret` is `client_secret`.
  return (
    typeof name === 'string' &&
    name.length <= maxName &&
    secretNames.test(name.replaceAll(/([a-z0-9])([A-Z])/g, '$1_$2'))
  );
}

function isBytes(values: readonly unknown[]): boolean {
  return (
    values.length >= shortestSecret && values.every((one) => typeof one === 'number' && one >= 0 && one < 256)
  );
}

const redacted = '[redacted]';
const maxText = 16_384;
const maxDepth = 16;
const maxName = 256;
const shortestSecret = 16;

// INVARIANT: every pattern is linear in the text: bounded, or ended by a class that what follows is not in.
/** Values under such names are never written, whatever they are. Names that only begin or end so are others: `tokenId`. */
const secretNames =
  /^(?:.{0,32}[_-])?(?:private[_-]?key|pkcs[_-]?8|pass[_-]?(?:phrase|word|wd)|secrets?|(?:join|access|refresh|bearer|id|api|auth|admin|kubelet)?[_-]?tokens?|jwt|(?:jwt[_-]?)?svid[_-]?token|jwt[_-]?svid|(?:proxy[_-]?)?authorization|(?:set[_-]?)?cookies?|api[_-]?key|credentials?)(?:[_-](?:pem|der|value|text))?$/i;
/** What a header or a parameter is worth, beside its name. */
const valueNames = /^(?:raw[_-]?)?values?$/i;
/** The private members of a JWK (RFC 7518 section 6). */
const keyMembers = /^(?:d|p|q|dp|dq|qi|oth|k)$/;
const keyLine = /-----BEGIN [A-Z0-9 ]{0,32}PRIVATE KEY-----/;
const patterns: readonly (readonly [RegExp, string])[] = [
  [
    /-----BEGIN[A-Z0-9 %+]{0,32}PRIVATE(?: |%20|\+)KEY-----[^]*?(?:-----END[A-Z0-9 %+]{0,32}PRIVATE(?: |%20|\+)KEY-----|$)/g,
    redacted,
  ],
  // PKCS #8 and SEC 1 in base64, without the lines around it.
  [/(?:MI(?:[GH].AgE[AB]|I...IBA[AD]|I...AgEA)|M[A-H].CAQ(?:Aw|E[Ew]))[A-Za-z0-9+/=_\s\\-]{16,}/g, redacted],
  // PEM in base64, but for a certificate.
  [/LS0tLS1CRUdJTi(?!BDRVJU)[A-Za-z0-9+/=_-]{16,}/g, redacted],
  // The same in hex: SEQUENCE, version 0 or 1.
  [/30(?:8[12])?(?:[0-9a-f]{2}){1,2}02010[01](?:02|30|04)[0-9a-f]{32,}/gi, redacted],
  // Any DER as it is shown to people, and bytes in decimal.
  [/\b30(?:[: ][0-9a-f]{2}){20,}/gi, redacted],
  [/\b(?:\d{1,3},\s{0,2}){15,}\d{1,3}/g, redacted],
  // The private members of a JWK.
  [/("(?:d|p|q|dp|dq|qi|k)\\{0,8}"\s{0,8}:\s{0,8}\\{0,8}")[A-Za-z0-9_-]{16,16384}/g, `$1${redacted}`],
  [/\bcst1\.[0-9a-z.]{1,256}/gi, 'cst1.[redacted]'],
  // The name of an admin token may be told.
  [/\b(ctk_[0-9a-f]{0,16})_?[0-9a-z_]{0,512}/gi, '$1_[redacted]'],
  [/\beyJ[A-Za-z0-9_-]{4,16384}\.[A-Za-z0-9_.-]{0,16384}/g, redacted],
  [/\b(bearer|basic|negotiate)(:?\s{1,8})[A-Za-z0-9._~+/=-]{4,16384}/gi, `$1$2${redacted}`],
  [
    /((?:proxy-)?authorization|(?:set-)?cookie|x-api-key)(\\{0,8}["']?\s{0,8}[:=]\s{0,8})[^\r\n]{1,16384}/gi,
    `$1$2${redacted}`,
  ],
  [
    /(pass(?:phrase|word|wd)|secret|token|private[_-]?key|api[_-]?key)(\\{0,8}["']?\s{0,8}(?:=>|[:=>])\s{0,8})(\\{0,8}"[^"]{0,16384}"?|\\{0,8}'[^']{0,16384}'?|\S{1,16384})/gi,
    `$1$2${redacted}`,
  ],
  [/(--[a-z-]{0,32}(?:pass(?:phrase|word)|secret|token)\s{1,8})\S{1,16384}/g, `$1${redacted}`],
  [/(:\/\/[^\s/:@]{0,256}:)[^\s/]{1,1024}@/g, `$1${redacted}@`],
];
// Cheap, and true for whatever of the above applies; most lines are none of it.
const suspicious =
  /key|pkcs|pass|secret|token|jwt|authorization|cookie|credential|bearer|basic |negotiate|\bcst1|ctk_|eyJ|kty|LS0tLS1|MI[GHI]|M[A-H].CAQ|30(?:8[12])?(?:[0-9a-f]{2}){1,2}02010|\b30[: ]|:\/\/[^\s/:@]{0,256}:|"type":"Buffer"|"15":\d|(?:\d{1,3},\s{0,2}){15}/i;
