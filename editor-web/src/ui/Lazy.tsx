// A component that is fetched when it is first shown, or when the page has been quiet for a while, so that the first
// load stays small and what is typed after a key that opens it still finds it there.
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

import { complain } from "../model/toasts";

const QUIET_MS = 2_000;

export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let loaded: ComponentType<P> | null = null;
  setTimeout(() => {
    load().then(
      (component) => (loaded = component),
      () => undefined, // asked again when it is shown
    );
  }, QUIET_MS);
  return function Lazy(props: P) {
    const [Component, set] = useState<ComponentType<P> | null>(() => loaded);
    useEffect(() => {
      if (Component === null) {
        load().then(
          (component) => {
            loaded = component;
            set(() => component);
          },
          () => complain(new Error("This part could not be loaded. Try again when you are online.")),
        );
      }
    }, []);
    return Component === null ? null : <Component {...props} />;
  };
}
