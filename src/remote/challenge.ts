/** What a server asks for. Parameter names in lower case. */
export type Challenge = { scheme: string; parameters: Readonly<Record<string, string>> }

const part = /([A-Za-z][\w-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))|([A-Za-z][\w-]*)/g

/** The challenges in a WWW-Authenticate header, the schemes in lower case. Source: RFC 9110, section 11.6.1. */
export function parseChallenges(header: string | undefined): Challenge[] {
  const found: { scheme: string; parameters: Record<string, string> }[] = []
  for (const [, name, quoted, plain, scheme] of (header ?? '').slice(0, 8192).matchAll(part)) {
    if (scheme !== undefined) found.push({ scheme: scheme.toLowerCase(), parameters: {} })
    else if (name !== undefined) {
      const last = found.at(-1)
      if (last) last.parameters[name.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain ?? ''
    }
  }
  return found
}
