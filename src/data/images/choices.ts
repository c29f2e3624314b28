/** Choices by name. */

/** Ways to fit an image whose aspect ratio differs from the model's input. */
export const fits = ['crop', 'stretch', 'pad'] as const;
/** How images of another shape are made to fit. */
export type Fit = (typeof fits)[number];

export const kernels = ['nearest', 'bilinear', 'bicubic', 'lanczos'] as const;
/** How pixels are interpolated. */
export type Kernel = (typeof kernels)[number];

export const channelOrders = ['rgb', 'bgr', 'gray'] as const;
/** The order of the color channels. */
export type ChannelOrder = (typeof channelOrders)[number];
