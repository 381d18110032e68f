/** Whether a value of `paths` is a template. */
export function isPathTemplate(text: string): boolean {
  return text.includes('{*}') || text.includes('{**}');
}

/**
 * What is wrong with a value of `paths` as a template; undefined when it is right, or no template at all. An operator is
 * a whole segment, `{**}` is the last of them, and braces stand for nothing else.
 * @see Envoy, envoy/extensions/path/match/uri_template/v3
 */
export function templateFault(text: string): string | undefined {
  const isTemplate = isPathTemplate(text);
  let ended = false;
  for (const segment of text.split('/')) {
    if (segment === '{*}' || segment === '{**}') {
      if (ended) return `has ${segment} after {**}`;
      ended = segment === '{**}';
    } else if (/[{}]/.test(segment)) {
      return 'has a brace that is not a segment {*} or {**}';
    } else if (isTemplate && segment.includes('*')) {
      return 'has both an operator in braces and a *';
    }
  }
  return isTemplate && !text.startsWith('/') ? 'does not begin with /' : undefined;
}

/**
 * A template made ready: `{*}` is one segment, not empty, `{**}` any number of them, none included. The slashes of the
 * template count: `/a/{**}` matches `/a/` and not `/a`. Time is linear in the path.
 * @param text a template without fault
 */
export function compileTemplate(text: string): (path: string) => boolean {
  const source = text
    .split('/')
    .map((segment) =>
      segment === '{*}' ? `[${character}]+` : segment === '{**}' ? `[${character}/]*` : escape(segment),
    )
    .join('/');
  const pattern = new RegExp(`^${source}$`);
  return (path) => pattern.test(path);
}

/** What Envoy 1.40 lets an operator stand for: `pchar` of RFC 3986. */
const character = "A-Za-z0-9\\-._~%!$&'()+,;:@=*";

function escape(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&');
}
