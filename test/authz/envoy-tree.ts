import { Action, Action_RbacAction } from '../../src/wire/rbac.ts';
import { HttpRequestHeaderMatchInput } from '../../src/wire/matching_inputs.ts';
import type { TypedExtensionConfig } from '../../src/wire/xds_core.ts';
import type {
  Matcher,
  Matcher_MatcherList_Predicate,
  Matcher_OnMatch,
  StringMatcher,
} from '../../src/wire/xds_matcher.ts';

/** A call as Envoy has it when its RBAC filter runs. */
export type ProxiedCall = {
  /** Of the caller's certificate; empty when there is none. */
  readonly uris: readonly string[];
  /** By name in lower case, `:path` and the like among them; several lines of one header are several pairs. */
  readonly headers: readonly (readonly [string, string])[];
  /** Null when the connection came by a socket without ports. */
  readonly port: number | null;
};

/** What Envoy 1.40 does with a matcher: the leaf that it comes to, and null for none, which is a denial. */
export function evaluateMatcher(matcher: Matcher, call: ProxiedCall): Action | null {
  if (matcher.matcherType?.$case === 'matcherList') {
    for (const { predicate, onMatch } of matcher.matcherType.matcherList.matchers) {
      if (predicate === undefined || !holds(predicate, call)) continue;
      const found = follow(onMatch, call);
      // What comes to nothing inside is as if it had not matched.
      if (found !== null) return found;
    }
  }
  if (matcher.matcherType?.$case === 'matcherTree') {
    const { input, treeType } = matcher.matcherType.matcherTree;
    const text = readInput(input, call);
    if (text !== null && treeType?.$case === 'exactMatchMap') {
      const found = follow(own(treeType.exactMatchMap.map, text), call);
      if (found !== null) return found;
    }
    if (text !== null && treeType?.$case === 'prefixMatchMap') {
      for (let length = text.length; length > 0; length--) {
        const found = follow(own(treeType.prefixMatchMap.map, text.slice(0, length)), call);
        if (found !== null) return found;
      }
    }
  }
  return matcher.onNoMatch === undefined ? null : follow(matcher.onNoMatch, call);
}

/** What the filters behind RBAC make of it: an allow alone passes by ext_authz. */
export function verdictOfAction(action: Action | null): 'allow' | 'deny' | 'ask' {
  if (action === null || action.action === Action_RbacAction.DENY) return 'deny';
  return action.name.startsWith('allow:') ? 'allow' : 'ask';
}

function follow(onMatch: Matcher_OnMatch | undefined, call: ProxiedCall): Action | null {
  if (onMatch === undefined) return null;
  if (onMatch.onMatch?.$case === 'matcher') return evaluateMatcher(onMatch.onMatch.matcher, call);
  const { typedConfig } = onMatch.onMatch?.action ?? {};
  if (typedConfig?.typeUrl !== 'type.googleapis.com/envoy.config.rbac.v3.Action') {
    throw new Error('Envoy refuses an OnMatch without an action');
  }
  return Action.decode(typedConfig.value);
}

function own<T>(map: Readonly<Record<string, T>>, key: string): T | undefined {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}

function holds({ matchType }: Matcher_MatcherList_Predicate, call: ProxiedCall): boolean {
  switch (matchType?.$case) {
    case 'singlePredicate': {
      const { input, matcher } = matchType.singlePredicate;
      const text = readInput(input, call);
      return text !== null && matcher?.$case === 'valueMatch' && fits(matcher.valueMatch, text);
    }
    case 'notMatcher':
      return !holds(matchType.notMatcher, call);
    case 'andMatcher':
      return matchType.andMatcher.predicate.every((one) => holds(one, call));
    case 'orMatcher':
      return matchType.orMatcher.predicate.some((one) => holds(one, call));
    case undefined:
      break;
  }
  throw new Error('Envoy refuses a predicate without a type');
}

function readInput(input: TypedExtensionConfig | undefined, call: ProxiedCall): string | null {
  const { typeUrl = '', value = Buffer.alloc(0) } = input?.typedConfig ?? {};
  switch (typeUrl.replace('type.googleapis.com/', '')) {
    case 'envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput':
      return call.uris.length === 0 ? null : call.uris.join(',');
    case 'envoy.extensions.matching.common_inputs.network.v3.DestinationPortInput':
      return call.port === null ? null : String(call.port);
    case 'envoy.type.matcher.v3.HttpRequestHeaderMatchInput': {
      const { headerName } = HttpRequestHeaderMatchInput.decode(value);
      const lines = call.headers.filter(([name]) => name === headerName).map(([, line]) => line);
      return lines.length === 0 ? null : lines.join(',');
    }
    default:
      throw new Error(`Envoy knows no input ${typeUrl}`);
  }
}

function fits({ matchPattern }: StringMatcher, text: string): boolean {
  switch (matchPattern?.$case) {
    case 'exact':
      return text === matchPattern.exact;
    case 'prefix':
      return text.startsWith(matchPattern.prefix);
    case 'suffix':
      return text.endsWith(matchPattern.suffix);
    case 'contains':
      return text.includes(matchPattern.contains);
    case 'safeRegex':
      return expression(matchPattern.safeRegex.regex).test(text);
    case 'custom':
    case undefined:
      break;
  }
  throw new Error('Envoy refuses a text matcher without a pattern');
}

/** RE2 matches the whole text; what the trees use of it means the same here. */
function expression(source: string): RegExp {
  const known = expressions.get(source) ?? new RegExp(`^(?:${source})$`);
  expressions.set(source, known);
  return known;
}

const expressions = new Map<string, RegExp>();
