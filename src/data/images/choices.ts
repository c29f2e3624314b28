/** Choices by name. */

/** Ways to fit an image whose aspect ratio differs from the model's input. */
export const fits = ['crop', 'stretch', 'pad'] as const;
/** Ways to fit images of another shape. */
export type Fit = (typeof fits)[number];

export const kernels = ['nearest', 'bilinear', 'bicubic', 'lanczos'] as const;
/** Interpolations of pixels. */
export type Kernel = (typeof kernels)[number];

export const channelOrders = ['rgb', 'bgr', 'gray'] as const;
/** The order of the color channels. */
export type ChannelOrder = (typeof channelOrders)[number];
