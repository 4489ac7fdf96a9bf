// A component that is fetched when it is first shown, so that the first load stays small.
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";

import { complain } from "../model/toasts";

export function lazy<P extends object>(load: () => Promise<ComponentType<P>>): ComponentType<P> {
  let loaded: ComponentType<P> | null = null;
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
