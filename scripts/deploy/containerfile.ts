/** The little of a Containerfile that the checks need: its instructions, in order, each with its stage's number. */
export type Instruction = { readonly name: string; readonly rest: string; readonly stage: number }

const known = new Set(
  'ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL RUN SHELL STOPSIGNAL USER VOLUME WORKDIR'.split(' '),
)

/** Throws an Error that quotes the line it does not understand. */
export function parseContainerfile(text: string): Instruction[] {
  const joined = text.replace(/^\s*#.*\n/gm, '').replace(/\\\n/g, ' ')
  let stage = -1
  return joined.split('\n').flatMap((line) => {
    if (line.trim() === '') return []
    const [, name = '', rest = ''] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? []
    if (!known.has(name)) throw new Error(`no such instruction: ${line}`)
    if (name === 'FROM') stage++
    return [{ name, rest: rest.trim(), stage }]
  })
}

/** `KEY=value KEY="value"` of ENV and LABEL. */
export function pairsOf(rest: string): Record<string, string> {
  const pairs = rest.matchAll(/([^\s=]+)=(?:"([^"]*)"|(\S*))/g)
  return Object.fromEntries([...pairs].map(([, key = '', quoted, plain]) => [key, quoted ?? plain ?? '']))
}

/**
 * Whether a path goes into the build: the last pattern of .dockerignore that matches it, or a folder above it, decides.
 * Source: Docker docs, ".dockerignore files"; of its patterns only the forms used here.
 */
export function isSent(path: string, dockerignore: string): boolean {
  let sent = true
  for (const line of dockerignore.split('\n')) {
    const pattern = line.trim()
    if (pattern === '' || pattern.startsWith('#')) continue
    const body = pattern.replace(/^!/, '')
    const expression = body
      .replace(/[.+^$()|[\]\\]/g, '\\$&')
      .replace(/\*\*\/|\*/g, (wild) => (wild === '*' ? '[^/]*' : '(?:.*/)?'))
    if (new RegExp(`^${expression}(?:/|$)`).test(path)) sent = pattern.startsWith('!')
  }
  return sent
}
