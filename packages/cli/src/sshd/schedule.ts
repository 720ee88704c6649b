import { existsSync } from 'node:fs'
import path from 'node:path'
import { PosternError } from '@postern/shared/errors'
import { quoteForShell, quoteForUnit } from '../service-manager/quote.ts'
import { lastLines, requireProgram, runProgram } from './run-program.ts'

/** What makes a server run `postern sshd refresh` every minute: a timer of systemd, or a line for cron. */

export type Scheduler = 'systemd' | 'cron' | 'none'

export interface ScheduledFile {
  file: string
  text: string
}

/** Where the system looks for them. */
export const SCHEDULE_FOLDERS = { systemd: '/etc/systemd/system', cron: '/etc/cron.d' } as const
export const TIMER_UNIT = 'postern-sshd-refresh.timer'

export function parseScheduler(text: string): Scheduler {
  if (text === 'systemd' || text === 'cron' || text === 'none') return text
  throw new PosternError('USAGE_INVALID', `there is no scheduler ${JSON.stringify(text)}`, {
    hint: 'the schedulers are systemd, cron and none',
  })
}

export function detectScheduler(): Scheduler {
  if (existsSync('/run/systemd/system')) return 'systemd'
  return existsSync(SCHEDULE_FOLDERS.cron) ? 'cron' : 'none'
}

/** @param command the words of `postern sshd refresh …` */
export function scheduleFiles(scheduler: Scheduler, command: readonly string[]): ScheduledFile[] {
  switch (scheduler) {
    case 'systemd':
      return [
        inFolder(SCHEDULE_FOLDERS.systemd, 'postern-sshd-refresh.service', serviceText(command)),
        inFolder(SCHEDULE_FOLDERS.systemd, TIMER_UNIT, TIMER_TEXT),
      ]
    case 'cron':
      return [inFolder(SCHEDULE_FOLDERS.cron, 'postern-sshd-refresh', cronText(command))]
    case 'none':
      return []
  }
}

/** systemd has to be told; cron looks by itself. Each command as words. */
export function scheduleCommands(scheduler: Scheduler): [string, ...string[]][] {
  if (scheduler !== 'systemd') return []
  return [
    ['systemctl', 'daemon-reload'],
    ['systemctl', 'enable', '--quiet', '--now', TIMER_UNIT],
  ]
}

/** @throws SSHD_SETUP_FAILED */
export async function startSchedule(scheduler: Scheduler): Promise<void> {
  for (const [program, ...args] of scheduleCommands(scheduler)) {
    const { code, stderr } = await runProgram(requireProgram(program), args)
    if (code !== 0) throw new PosternError('SSHD_SETUP_FAILED', `systemctl fails: ${lastLines(stderr)}`)
  }
}

/** Before its files go. A timer that is not there is no failure: everything else still has to be taken back. */
export async function stopSchedule(scheduler: Scheduler): Promise<void> {
  if (scheduler !== 'systemd') return
  await runProgram(requireProgram('systemctl'), ['disable', '--quiet', '--now', TIMER_UNIT])
}

export function commandLine(command: readonly string[]): string {
  return command.map(quoteForShell).join(' ')
}

function inFolder(folder: string, name: string, text: string): ScheduledFile {
  return { file: path.join(folder, name), text }
}

function serviceText(command: readonly string[]): string {
  return `# Taken back by: postern sshd setup --undo
[Unit]
Description=Revoked certificates and host certificates of Postern
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=${command.map(quoteForUnit).join(' ')}
`
}

const TIMER_TEXT = `# Taken back by: postern sshd setup --undo
[Unit]
Description=Revoked certificates and host certificates of Postern, every minute

[Timer]
OnBootSec=15s
OnUnitInactiveSec=60s
AccuracySec=5s

[Install]
WantedBy=timers.target
`

function cronText(command: readonly string[]): string {
  // cron ends the line at a percent sign that is not escaped
  const line = commandLine(command).replaceAll('%', '\\%')
  return `# Taken back by: postern sshd setup --undo\n* * * * * root ${line} 2>&1 | logger -t postern\n`
}
