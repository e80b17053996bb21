import { createInterface } from 'node:readline/promises'
import { PacksError } from '../client/failure.ts'

/** Asks a person for a line. */
export async function askLine(question: string, signal: AbortSignal): Promise<string> {
  const lines = createInterface({ input: process.stdin, output: process.stderr })
  // The interface reads the keys itself, Ctrl-C among them.
  lines.once('SIGINT', () => process.kill(process.pid, 'SIGINT'))
  try {
    return (await lines.question(question, { signal })).trim()
  } finally {
    lines.close()
  }
}

/** Asks a person for a secret: what is typed is not shown. */
export async function askSecret(question: string, signal: AbortSignal): Promise<string> {
  process.stderr.write(question)
  process.stdin.setRawMode(true)
  try {
    return await typedLine(signal)
  } finally {
    process.stdin.setRawMode(false)
    process.stdin.pause()
    process.stderr.write('\n')
  }
}

function typedLine(signal: AbortSignal): Promise<string> {
  return new Promise((resolve, reject) => {
    let typed = ''
    const end = (settle: () => void) => {
      process.stdin.off('data', onData)
      signal.removeEventListener('abort', onAbort)
      settle()
    }
    const onAbort = () => end(() => reject(signal.reason))
    const onData = (data: Buffer) => {
      for (const key of data.toString()) {
        if (key === '\r' || key === '\n' || key === '\u0004') return end(() => resolve(typed))
        // In raw mode Ctrl-C is a key like any other.
        if (key === '\u0003') process.kill(process.pid, 'SIGINT')
        else if (key === '\u007f' || key === '\b') typed = [...typed].slice(0, -1).join('')
        else typed += key
      }
    }
    process.stdin.on('data', onData)
    signal.addEventListener('abort', onAbort)
    process.stdin.resume()
  })
}

/** All of stdin, without the line feed at its end. Throws INPUT_MISSING where it is empty. */
export async function readStdin(what: string): Promise<string> {
  let text = ''
  for await (const piece of process.stdin.setEncoding('utf8')) text += piece
  text = text.replace(/\r?\n$/, '')
  if (text) return text
  throw new PacksError('INPUT_MISSING', `${what} is expected on stdin, which is empty`)
}
