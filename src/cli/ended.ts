/** The wish to end a command that runs until it is told to stop. */
export type Ended = {
  /** Resolves with the exit code. */
  readonly code: Promise<number>
  end(code: number): void
  /** Somebody will not wait: what is under way is to be cut. */
  readonly hurry: AbortSignal
}

/** The same Ctrl-C may arrive twice: from the terminal, and handed on by npm. */
const sameSignalMs = 1_000

/** Listens to SIGINT and SIGTERM: the first drains; a later one, by somebody who will not wait, cuts what is under way. */
export function endOf(): Ended {
  let end: (code: number) => void = () => undefined
  const code = new Promise<number>((resolve) => {
    end = resolve
  })
  const hurry = new AbortController()
  let askedAt: number | undefined
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => {
      askedAt ??= performance.now()
      if (performance.now() - askedAt > sameSignalMs) hurry.abort()
      end(0)
    })
  return { code, end, hurry: hurry.signal }
}
