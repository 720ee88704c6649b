import { cpSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Plugin } from 'esbuild'
import { bundleProgram, type ProgramName, readVersion } from '../../build.ts'
import { makeTempFolder } from './temp-folder.ts'

/** Builds of the two programs that are one minor version older or newer, and say what such a version may say. */

const PACKAGES = fileURLToPath(new URL('../../packages/', import.meta.url))

/** One place of the source that is written otherwise there. */
export interface SourceChange {
  /** Below `packages/`. */
  file: string
  find: string
  replace: string
}

export interface NeighbourBuild {
  version: string
  /** Its launcher. */
  program: string
}

/** @param minors how many minor versions away: 1 is newer, -1 older */
export async function buildNeighbour(
  name: ProgramName,
  minors: number,
  changes: readonly SourceChange[],
): Promise<NeighbourBuild> {
  const packageFolder = path.join(PACKAGES, name)
  const folder = makeTempFolder(`${name}-build`)
  const [major, minor] = (await readVersion(packageFolder)).split('.').map(Number)
  const version = `${major}.${minor! + minors}.0`
  await bundleProgram(name, { outdir: path.join(folder, 'dist'), version, plugins: [changeSource(changes)] })
  const { bin } = JSON.parse(readFileSync(path.join(packageFolder, 'package.json'), 'utf8'))
  for (const part of ['bin', 'package.json']) {
    cpSync(path.join(packageFolder, part), path.join(folder, part), { recursive: true })
  }
  return { version, program: path.join(folder, String(Object.values(bin)[0])) }
}

/** A change that finds nothing fails the build: else the test would go on with the version of today. */
function changeSource(changes: readonly SourceChange[]): Plugin {
  return {
    name: 'change-source',
    setup(build) {
      const open = new Set(changes)
      build.onLoad({ filter: /\/packages\/.*\.ts$/ }, ({ path: file }) => {
        const here = changes.filter((change) => path.join(PACKAGES, change.file) === file)
        if (here.length === 0) return undefined
        const contents = here.reduce(
          (text, change) => {
            if (text.split(change.find).length !== 2) return text
            open.delete(change)
            return text.replace(change.find, () => change.replace)
          },
          readFileSync(file, 'utf8'),
        )
        return { contents, loader: 'ts' }
      })
      build.onEnd(() => {
        if (open.size === 0) return
        const where = [...open].map(({ file, find }) => `${file}: ${find}`).join('\n')
        throw new Error(`to be found once in the source:\n${where}`)
      })
    },
  }
}
