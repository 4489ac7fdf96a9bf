// Every icon: 16 by 16, drawn with the text's colour.
const PATHS = {
  files: "M3 2.5h6l4 4v7H3zM9 2.5v4h4",
  search: "M7 2.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9M10.5 10.5 14 14",
  run: "M4.5 2.5v11l9-5.5z",
  stop: "M4 4h8v8H4z",
  share: "M8 10V2.5M5 5l3-3 3 3M3 9v4.5h10V9",
  close: "m4 4 8 8M12 4l-8 8",
  folder: "M2 4h4l1.5 1.5H14V13H2z",
  newFile: "M3 2.5h6l4 4v7H3zM8 7v4M6 9h4",
  newFolder: "M2 4h4l1.5 1.5H14V13H2zM8 7.5v4M6 9.5h4",
  upload: "M8 11V3M5 6l3-3 3 3M3 13h10",
  branch: "M4.500 5v6M4.500 9.500h3a4 4 0 0 0 4-4M3 2.500h3V5H3zM3 11h3v2.500H3zM10 2.500h3V5h-3z",
  download: "M8 3v8M5 8l3 3 3-3M3 13h10",
  plus: "M8 3v10M3 8h10",
  more: "M3.5 8h.01M8 8h.01M12.5 8h.01",
  people: "M6 8a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5M1.5 13.5c0-2.5 2-4 4.5-4s4.5 1.5 4.5 4M11 3.2a2.4 2.4 0 0 1 0 4.6M12 9.8c1.600.5 2.5 1.800 2.5 3.700",
  code: "m5 4-4 4 4 4M11 4l4 4-4 4",
  output: "M2 3h12v10H2zM4.500 6l2 2-2 2M8 10h3",
  right: "m6 4 4 4-4 4",
  down: "m4 6 4 4 4-4",
  split: "M2 3h12v10H2zM8 3v10",
  theme: "M8 2.500a5.500 5.500 0 1 0 0 11zM8 2.500a5.500 5.500 0 0 1 0 11",
  help: "M6 6a2 2 0 1 1 2.800 1.800c-.5.3-.8.7-.8 1.400M8 11.800h.01M8 1.500a6.500 6.500 0 1 0 0 13 6.500 6.500 0 0 0 0-13",
  menu: "M2.500 4h11M2.500 8h11M2.500 12h11",
  clock: "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2M8 5v3l2 2",
  flag: "M4 14V2.500h7.500L10 5.500l1.500 3H4",
  trash: "M3 4h10M6.500 4V2.500h3V4M4.500 4l.5 9.500h6l.5-9.500",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}

interface IconButtonProps {
  icon: IconName;
  label: string;
  onClick: () => void;
  pressed?: boolean;
  class?: string;
}

export function IconButton({ icon, label, onClick, pressed, class: name = "" }: IconButtonProps) {
  return (
    <button type="button" class={`icon-button ${name}`} aria-label={label} title={label} aria-pressed={pressed} onClick={onClick}>
      <Icon name={icon} />
    </button>
  );
}
