import { open, readFile, rm } from 'node:fs/promises'
import { hostname } from 'node:os'
import { PacksError } from '../client/failure.ts'
import { outputKind } from './temporary.ts'

// Two commands that write one file would each write into the other's beginning: one finishes and gives the file its
// name while the other still writes to it. So a file beside it, `packs.tar.writing`, says who writes: its host and
// process. To own the output is to have made that file; of two that try, the file system refuses one. Whoever was
// killed could not remove it: it is taken over where that process runs on this host no more. Of another host nothing is
// known, nor of what is not written as here: a person has to remove it.

/** Files of this process. */
const ours = new Set<string>()

const grammar = /^packs (\S+) (\d+)\n$/

/** Makes this process the only writer of `output`; answers what ends that. Throws USAGE where another one writes it. */
export async function claimOutput(output: string): Promise<() => Promise<void>> {
  const path = `${output}.writing`
  if ((await outputKind(output)) !== 'file')
    throw new PacksError(
      'USAGE',
      `${output} is no file, or a link to one: name the file itself, for a bundle goes on there where it was cut`,
    )
  if (await isAbandoned(path)) await rm(path, { force: true })
  const file = await open(path, 'wx').catch((error: NodeJS.ErrnoException) => {
    throw error.code === 'EEXIST' ? busy(output, path) : Object.assign(error, { path: output })
  })
  ours.add(path)
  try {
    await file.writeFile(`packs ${hostname()} ${process.pid}\n`)
  } finally {
    await file.close()
  }
  return async () => {
    await rm(path, { force: true })
    ours.delete(path)
  }
}

function busy(output: string, path: string): PacksError {
  return new PacksError(
    'USAGE',
    `another command is writing ${output}: wait for its end, or give another name. If there is none, remove ${path}`,
  )
}

async function isAbandoned(path: string): Promise<boolean> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    return ''
  })
  const [, host, pid] = grammar.exec(text) ?? []
  if (host !== hostname() || pid === undefined) return false
  // A pid that is ours was another's before: in a container all processes may have the same one.
  return Number(pid) === process.pid ? !ours.has(path) : !isRunning(Number(pid))
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}
